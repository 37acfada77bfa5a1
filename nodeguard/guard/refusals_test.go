package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// tries is what an actor does that shall be refused.
type tries struct {
	TCP, UDP []string // addresses to connect to
	Send     string   // address to send to, without a connection
	Protocol int      // of a socket
	Device   string
}

// linger does it, tells with a line of errors that it has, and stays until its
// input ends: so it can be asked for its executable.
func linger(text string) int {
	var do tries
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		fmt.Println(err)
		return 1
	}
	var said []string
	note := func(err error) {
		if !errors.Is(err, unix.EPERM) {
			said = append(said, fmt.Sprint(err))
		}
	}
	for network, all := range map[string][]string{"tcp": do.TCP, "udp": do.UDP} {
		for _, at := range all {
			_, err := net.DialTimeout(network, at, 5*time.Second)
			note(err)
		}
	}
	if do.Send != "" {
		c, err := net.ListenPacket("udp", ":0")
		if err == nil {
			var to *net.UDPAddr
			if to, err = net.ResolveUDPAddr("udp", do.Send); err == nil {
				_, err = c.WriteTo([]byte("x"), to)
			}
		}
		note(err)
	}
	if do.Protocol != 0 {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, do.Protocol)
		note(err)
	}
	if do.Device != "" {
		note(opens(do.Device, os.O_RDONLY))
	}
	fmt.Printf("%q\n", said)
	os.Stdin.Read(make([]byte, 1))
	return 0
}

// batter connects to an address, and opens a device, so many times.
func batter(at, times string) int {
	n, _ := strconv.Atoi(times)
	host, port, _ := net.SplitHostPort(at)
	to := unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(host).To4())}
	to.Port, _ = strconv.Atoi(port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for range n {
		if err := unix.Connect(fd, &to); err != unix.EPERM {
			fmt.Println("connect:", err)
			return 1
		}
		if err := opens("/dev/kmsg", os.O_RDONLY); !errors.Is(err, unix.EPERM) {
			fmt.Println("open:", err)
			return 1
		}
	}
	return 0
}

// recorded runs a guard until it has read all refusals that there are: it gives what is
// told of them, with the repetitions and what is lost, which are told at its end.
func (s stage) recorded(t *testing.T, g *guard.Guard) *diary {
	t.Helper()
	ring, err := ebpf.LoadPinnedMap(filepath.Join(s.cfg.PinDir, "refusals"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	unread, err := ringbuf.NewReader(ring) // which reads nothing
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var d diary
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, &d, nil) }()
	for deadline := time.Now().Add(time.Minute); unread.AvailableBytes() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return &d
}

// refused is how often the programs refused, and how many of these are lost.
func (s stage) refused(t *testing.T) (refused, lost uint64) {
	t.Helper()
	names, counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		switch {
		case strings.Contains(name, "too many"):
			lost += counts[i]
		case strings.HasPrefix(name, "refused"):
			refused += counts[i]
		}
	}
	return refused, lost
}

// TestRootEachRefusalIsTold: who, VO, job, pid, executable, object and rule of
// what the programs of the network and of devices refuse.
func TestRootEachRefusalIsTold(t *testing.T) {
	s := newStageOf(t, "")
	s.people(t)
	var do tries
	port := func(network, address string) string {
		_, port, _ := net.SplitHostPort(s.listen(t, alice, network, address))
		return port
	}
	tcp4, tcp6, udp4, udp6 := port("tcp4", "127.0.0.1:0"), port("tcp6", "[::1]:0"), port("udp4", "127.0.0.1:0"), port("udp6", "[::1]:0")
	do.TCP = []string{"127.0.0.1:" + tcp4, "[::1]:" + tcp6, "[::ffff:127.0.0.1]:" + tcp4}
	do.UDP = []string{"127.0.0.1:" + udp4}
	do.Send, do.Protocol, do.Device = "[::1]:"+udp6, unix.IPPROTO_MPTCP, "/dev/kmsg"
	text, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.job(t, "chemistry", carol, "linger", string(text), "-")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "[]\n" {
		t.Fatalf("not refused: %s (%v)", line, err)
	}
	want := map[string]string{ // object: rule
		"tcp 127.0.0.1:" + tcp4 + " of VO physics": "connect4",
		"tcp [::1]:" + tcp6 + " of VO physics":     "connect6",
		"udp 127.0.0.1:" + udp4 + " of VO physics": "connect4",
		"udp [::1]:" + udp6 + " of VO physics":     "sendmsg6",
		"socket of IPv4 and mptcp":                 "sock_create",
		"character device 1:11, to read":           "device",
	}
	// An IPv4 address in IPv6 form is a repetition of the first. Go tries Multipath
	// TCP to listen: so alice was refused something, too.
	told := map[string]bool{}
	for _, r := range s.recorded(t, s.Guard).all() {
		if r.VO == "physics" && strings.HasSuffix(r.Subject, " and mptcp") {
			continue
		}
		action := "isolation.network"
		if r.Detail["rule"] == "device" {
			action = "isolation.devices"
		}
		if rule, ok := want[r.Subject]; !ok || rule != r.Detail["rule"] || r.Action != action || r.Reason == "" {
			t.Errorf("told %+v", r)
		}
		told[r.Subject] = true
		if r.Actor != "carol@chemistry" || r.User != "carol" || r.VO != "chemistry" || r.Allowed || r.Detail["job"] != "j1" ||
			r.Detail["pid"] != strconv.Itoa(cmd.Process.Pid) || r.Detail["executable"] != s.bin {
			t.Errorf("whose is %+v", r)
		}
	}
	if u := s.used(t, ofCarol); u.Refused != 7 {
		t.Errorf("her job's figures have %d refusals, want 7", u.Refused)
	}
	if len(told) != len(want) {
		t.Errorf("told of %v, want %v", told, want)
	}
}

// TestRootRefusalsAfterTheProcess: one that has ended is told by the number of
// its executable, and never by another's name; one of no VO is told too.
func TestRootRefusalsAfterTheProcess(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	var st unix.Stat_t
	if err := unix.Stat(s.bin, &st); err != nil {
		t.Fatal(err)
	}
	executable := fmt.Sprintf("file %d:%d inode %d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	whose := map[uint32]string{carol: "carol@chemistry"}
	rules := map[uint32]string{carol: "connect4", mal: "sock_create"}
	if level, _ := s.Level(); level == nodeguard.LevelC { // at level A it executes nothing
		whose[mal] = fmt.Sprintf("uid %d", uint32(mal))
	}
	pids := map[uint32]int{}
	for uid := range whose {
		cmd := s.command(t, uid, "connect", "tcp4", at)
		if out, err := cmd.Output(); err == nil {
			t.Fatalf("uid %d is not refused: %s", uid, out)
		}
		pids[uid] = cmd.Process.Pid
	}
	records := s.recorded(t, s.Guard).all()
	for uid, actor := range whose {
		i := slices.IndexFunc(records, func(r audit.Record) bool { return r.Actor == actor })
		if i < 0 {
			t.Fatalf("of %s nothing is told: %+v", actor, records)
		}
		if r := records[i]; r.Detail["rule"] != rules[uid] || r.Detail["pid"] != strconv.Itoa(pids[uid]) || r.Detail["executable"] != executable {
			t.Errorf("told %+v, executable %s", r, executable)
		}
	}
}

// TestRootFloodOfRefusals: decisions stay right, each refusal is told or counted
// as lost, for its VO; and what one VO is refused hides nothing of another's.
func TestRootFloodOfRefusals(t *testing.T) {
	s := newStage(t)
	s.people(t)
	at := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	// Nobody reads: it must fill.
	const each, batterers = 10000, 2
	before, _ := s.refused(t) // Go tries Multipath TCP to listen
	ends := make(chan error, batterers)
	for range batterers {
		cmd := s.command(t, carol, "batter", at, strconv.Itoa(each))
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			ends <- err
		}()
	}
	for range batterers {
		if err := <-ends; err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.command(t, dave, "connect", "tcp4", at).Output(); err == nil {
		t.Fatalf("dave is not refused: %s", out)
	}
	const ofCarol = 2 * each * batterers
	refused, lost := s.refused(t)
	if refused-before != ofCarol+1 || lost == 0 || lost >= ofCarol {
		t.Errorf("%d refusals are counted of %d, %d lost", refused-before, ofCarol+1, lost)
	}
	told, davids, lostInLog := uint64(0), 0, uint64(0)
	for _, r := range s.recorded(t, s.Guard).all() {
		n := uint64(1)
		for _, key := range []string{"repeated", "unnamed"} {
			if r.Detail[key] != "" {
				n, _ = strconv.ParseUint(r.Detail[key], 10, 64)
			}
		}
		if r.Detail["lost"] != "" {
			more, _ := strconv.ParseUint(r.Detail["lost"], 10, 64)
			lostInLog += more
		}
		switch r.VO {
		case "chemistry":
			told += n
		case "biology":
			davids++
			if r.Actor != "dave@biology" || r.Subject != "tcp "+at+" of VO physics" {
				t.Errorf("dave's refusal is told as %+v", r)
			}
		}
	}
	if lostInLog != lost {
		t.Errorf("%d are lost, in the log are %d", lost, lostInLog)
	}
	if told != ofCarol-lost || davids != 1 {
		t.Errorf("%d of chemistry's %d refusals are told, %d lost; biology's one %d times", told, ofCarol, lost, davids)
	}
	// What is lost while somebody reads, or while nobody does, is in the log once, with
	// its VO.
	ctx, cancel := context.WithCancel(t.Context())
	var d diary
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &d, nil) }()
	for deadline := time.Now().Add(time.Minute); len(d.all()) == 0 && time.Now().Before(deadline); {
		if out, err := s.command(t, carol, "batter", at, "1000").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_, after := s.refused(t)
	if _, inLog := d.told(t); inLog != after-lost || inLog == 0 {
		t.Errorf("%d are lost, in the log are %d", after-lost, inLog)
	}
	if out, err := s.command(t, carol, "batter", at, "5000").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.Guard.Close()
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	s.Guard = next
	_, more := s.refused(t)
	told = 0
	for _, r := range s.recorded(t, next).all() {
		if r.Detail["lost"] != "" {
			n, _ := strconv.ParseUint(r.Detail["lost"], 10, 64)
			told += n
		}
	}
	if told != more-after || told == 0 {
		t.Errorf("while nobody read %d were lost, in the log are %d", more-after, told)
	}
}

// all is what is in the diary.
func (d *diary) all() []audit.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.records
}

// TestRootRefusalsOfSuccessor: what was refused while no guard ran is told by the
// next, with jobs and VOs that it never made.
func TestRootRefusalsOfSuccessor(t *testing.T) {
	s := newStageOf(t, "")
	s.people(t)
	if _, err := s.JobCgroup(t.Context(), xos.Account{User: "carol", VO: "chemistry"}, "j1"); err != nil {
		t.Fatal(err)
	}
	cmd := s.job(t, "chemistry", carol, "use", "/dev/kmsg", "-")
	s.Guard.Close()
	if out, err := cmd.Output(); err == nil {
		t.Fatalf("not refused: %s", out)
	}
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	records := s.recorded(t, next).all()
	if len(records) == 0 {
		t.Fatal("nothing is told")
	}
	if r := records[0]; r.VO != "chemistry" || r.Detail["job"] != "j1" || r.Detail["rule"] != "device" {
		t.Errorf("told %+v", r)
	}
}

// TestRootRefusalsOfAnotherVersion: a predecessor's ring of another size is
// replaced, and isolation goes on.
func TestRootRefusalsOfAnotherVersion(t *testing.T) {
	s := newStage(t)
	s.people(t)
	s.Guard.Close()
	at := filepath.Join(s.cfg.PinDir, "refusals")
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.Pin(at); err != nil {
		t.Fatal(err)
	}
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if level, features := next.Level(); level != nodeguard.LevelC && level != nodeguard.LevelA {
		t.Fatalf("level %s: %+v", level, features)
	}
	if out, err := s.command(t, carol, "use", "/dev/kmsg", "-").Output(); err == nil {
		t.Fatalf("not refused: %s", out)
	}
	if records := s.recorded(t, next).all(); len(records) == 0 || records[0].VO != "chemistry" || records[0].Detail["rule"] != "device" {
		t.Errorf("told %+v", records)
	}
}
