package guard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	systemd "github.com/godbus/dbus/v5"

	"github.com/xtreemos/xos"
)

// logins bounds what accounts' sessions use. They are in cgroups of systemd's,
// user.slice/user-UID.slice, and it is asked to bound those: until the machine
// is restarted, and before the first of an account's sessions begins.
type logins struct {
	ceilings Ceilings
	have     error // why nothing is bounded
}

// lookForLogins tells whether logins can be bounded: there is a systemd, and the
// machine's controllers are of cgroup version 2.
func lookForLogins(root string, c Ceilings) logins {
	l := logins{ceilings: c}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		l.have = xos.Errorf(xos.NotSupported, "no systemd runs here")
		return l
	}
	// Only on demand does systemd hand them down by itself.
	cgroups{root: root}.handDown(root)
	files := []string{"memory.max", "pids.max", "cpu.weight"}
	if c.IO > 0 {
		files = append(files, "io.max")
	}
	for _, file := range files {
		if _, err := os.Stat(filepath.Join(root, "user.slice", file)); err != nil {
			l.have = xos.Errorf(xos.NotSupported, "user.slice has no %s: version 1 holds the controller, or a container does not pass it on", file)
		}
	}
	return l
}

// settleIn is how long systemd may take over it.
const settleIn = 10 * time.Second

// bound bounds the sessions of a uid. Asked again it changes what is different.
func (l *logins) bound(ctx context.Context, uid uint32) error {
	if l.have != nil {
		return nil // Level says so
	}
	ctx, cancel := context.WithTimeout(ctx, settleIn)
	defer cancel()
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "asking systemd to bound the sessions of uid %d: %w", uid, err)
	}
	defer conn.Close()
	if err := conn.SetUnitPropertiesContext(ctx, fmt.Sprintf("user-%d.slice", uid), true, l.properties()...); err != nil {
		return xos.Errorf(xos.Unavailable, "bounding the sessions of uid %d: %w", uid, err)
	}
	return nil
}

// properties are systemd's words for the ceilings (systemd.resource-control(5)).
func (l *logins) properties() []dbus.Property {
	most := func(n int64) systemd.Variant {
		if n == 0 {
			return systemd.MakeVariant(^uint64(0))
		}
		return systemd.MakeVariant(uint64(n))
	}
	quota := systemd.MakeVariant(^uint64(0))
	if l.ceilings.CPUs > 0 {
		quota = systemd.MakeVariant(uint64(l.ceilings.CPUs) * 1000) // microseconds a second
	}
	properties := []dbus.Property{
		// Equal shares, whoever has more threads: with it comes the controller.
		{Name: "CPUWeight", Value: systemd.MakeVariant(uint64(100))},
		{Name: "IOWeight", Value: systemd.MakeVariant(uint64(100))},
		{Name: "CPUQuotaPerSecUSec", Value: quota},
		{Name: "MemoryHigh", Value: most(l.ceilings.high())},
		{Name: "MemoryMax", Value: most(l.ceilings.Memory)},
		{Name: "MemorySwapMax", Value: most(l.ceilings.Swap)},
		{Name: "TasksMax", Value: most(l.ceilings.Processes)},
	}
	type rate struct {
		Path  string
		Bytes uint64
	}
	if l.ceilings.IO > 0 {
		var rates []rate
		for _, disk := range disks() {
			rates = append(rates, rate{"/dev/block/" + disk, uint64(l.ceilings.IO)})
		}
		for _, name := range []string{"IOReadBandwidthMax", "IOWriteBandwidthMax"} {
			properties = append(properties, dbus.Property{Name: name, Value: systemd.MakeVariant(rates)})
		}
	}
	return properties
}
