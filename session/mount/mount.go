// Package mount mounts home volumes by systemd units, one for each volume:
// xos-mount@VOLUME.service runs mount.xosfs with the configuration that is
// written here. So a mount outlives the service that asked for it.
package mount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/coreos/go-systemd/v22/unit"
	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

// Units implements session.Mounter.
type Units struct {
	// Run is the runtime directory, "/run/xos"; Core is host:port of the core,
	// Roots the file with the grid's root certificates.
	Run, Core, Roots string
}

var _ session.Mounter = Units{}

// config is what mount.xosfs reads; see cmd/mount.xosfs.
type config struct {
	Volume      string            `toml:"volume"`
	Mountpoint  string            `toml:"mountpoint"`
	Account     string            `toml:"account"`
	UID         uint32            `toml:"uid"`
	GID         uint32            `toml:"gid"`
	Core        string            `toml:"core"`
	Credentials string            `toml:"credentials"`
	Roots       string            `toml:"roots"`
	Groups      map[string]uint32 `toml:"groups"`
}

// unitName of a volume: escaped, so that the unit's %I is the volume.
func unitName(v xos.VolumeID) string {
	return "xos-mount@" + unit.UnitNameEscape(string(v)) + ".service"
}

// valid keeps what could be another file or unit out.
func valid(v xos.VolumeID) bool {
	if len(v) == 0 || len(v) > 128 || v[0] < 'a' || v[0] > 'z' {
		return false
	}
	for i := 0; i < len(v); i++ {
		c := v[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

func (u Units) path(v xos.VolumeID) string {
	return filepath.Join(u.Run, "mounts", string(v)+".toml")
}

// within bounds what systemd is waited for where the caller set no limit.
const within = 15 * time.Second

// write makes the configuration of a mount.
func (u Units) write(v xos.VolumeID, m session.Mapping) error {
	if !valid(v) {
		return xos.Errorf(xos.Invalid, "%.80q is no volume", string(v))
	}
	cfg := config{
		Volume: string(v), Mountpoint: m.Home, Account: m.Account.String(), UID: m.UID, GID: m.UID, Core: u.Core,
		Credentials: filepath.Join(u.Run, "cred", strconv.FormatUint(uint64(m.UID), 10)), Roots: u.Roots, Groups: map[string]uint32{},
	}
	for _, g := range m.Groups {
		cfg.Groups[g.Name] = g.GID
	}
	text, err := toml.Marshal(cfg)
	if err == nil {
		err = os.MkdirAll(filepath.Join(u.Run, "mounts"), 0o700)
	}
	if err == nil {
		err = replace(u.path(v), text)
	}
	if err != nil {
		return xos.Errorf(xos.Internal, "writing a mount's configuration: %w", err)
	}
	return nil
}

// replace gives a file new content in one step. It need not survive a boot, as
// what it describes does not either.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Mount implements session.Mounter.
func (u Units) Mount(ctx context.Context, v xos.VolumeID, m session.Mapping) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := u.write(v, m); err != nil {
		return err
	}
	return u.call(ctx, "mounting", v, func(c *dbus.Conn, done chan<- string) error {
		// A unit that failed too often stands still until it is told that
		// things are well; that it did not fail is no error.
		c.ResetFailedUnitContext(ctx, unitName(v))
		_, err := c.StartUnitContext(ctx, unitName(v), "replace", done)
		return err
	})
}

// Unmount implements session.Mounter.
func (u Units) Unmount(ctx context.Context, v xos.VolumeID, _ session.Mapping) error {
	if !valid(v) {
		return xos.Errorf(xos.Invalid, "%.80q is no volume", string(v))
	}
	ctx, cancel := context.WithTimeout(ctx, 3*within)
	defer cancel()
	err := u.call(ctx, "unmounting", v, func(c *dbus.Conn, done chan<- string) error {
		_, err := c.StopUnitContext(ctx, unitName(v), "replace", done)
		return err
	})
	if err != nil {
		return err
	}
	if err := os.Remove(u.path(v)); err != nil && !os.IsNotExist(err) {
		return xos.Errorf(xos.Internal, "removing a mount's configuration: %w", err)
	}
	return nil
}

// call has systemd do a job and waits for it.
func (u Units) call(ctx context.Context, what string, v xos.VolumeID, f func(*dbus.Conn, chan<- string) error) error {
	c, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "reaching systemd: %w", err)
	}
	defer c.Close()
	done := make(chan string, 1)
	if err := f(c, done); err != nil {
		return xos.Errorf(xos.Unavailable, "%s volume %s: %w", what, v, err).WithHint("systemctl status %s", unitName(v))
	}
	select {
	case result := <-done:
		if result != "done" {
			return xos.Errorf(xos.Unavailable, "%s volume %s ended with %q", what, v, result).WithHint("journalctl -u %s", unitName(v))
		}
		return nil
	case <-ctx.Done():
		return xos.Errorf(xos.Unavailable, "%s volume %s takes too long", what, v).WithHint("journalctl -u %s", unitName(v))
	}
}
