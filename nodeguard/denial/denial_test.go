package denial_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard/denial"
)

// sample is an entry as the programs write it.
func sample(t testing.TB, hook uint32, comm string) []byte {
	raw := bpf.VonetXosDenial{When: 5, ObjectVo: 2, Vo: 1, Uid: 7, Pid: 99, Hook: hook}
	raw.Cgroup, raw.ExeInode, raw.ExeDev = 77, 66, 8<<20|2
	raw.Object.Id, raw.Object.Dev, raw.Object.Uid = 1234, 8<<20|1, 8
	for i := range min(len(comm), len(raw.Comm)) {
		raw.Comm[i] = int8(comm[i])
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, raw); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	got, err := denial.Decode(sample(t, uint32(bpf.LsmXosHookXOS_FILE_OPEN), "sixteen-and-more"))
	if err != nil {
		t.Fatal(err)
	}
	want := denial.Denial{Hook: uint32(bpf.LsmXosHookXOS_FILE_OPEN), VO: 1, ObjectVO: 2, UID: 7, PID: 99, ObjectUID: 8, Device: 8<<20 | 1, Object: 1234,
		Cgroup: 77, Executable: denial.File{Device: 8<<20 | 2, Inode: 66}, Command: "sixteen-and-more", NanosecondsFromBoot: 5}
	if got != want {
		t.Errorf("decoded %+v, want %+v", got, want)
	}
	for name, b := range map[string][]byte{
		"nothing":     nil,
		"too short":   sample(t, 1, "x")[:20],
		"too long":    append(sample(t, 1, "x"), 0),
		"no hook":     sample(t, 0, "x"),
		"hook beyond": sample(t, uint32(bpf.LsmXosHookXOS_HOOKS), "x"),
		"no program":  sample(t, uint32(bpf.VonetXosProgramXOS_SOCK_CREATE)-1, "x"),
		"another":     sample(t, uint32(bpf.VonetXosProgramXOS_PROGRAMS), "x"),
	} {
		if _, err := denial.Decode(b); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(f, 1, "sh"))
	f.Add(sample(f, uint32(bpf.VonetXosProgramXOS_CONNECT6), "sh"))
	f.Add(sample(f, uint32(bpf.VonetXosProgramXOS_DEVICE), "sh"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := denial.Decode(b)
		if err != nil {
			return
		}
		if d.Hook == 0 || d.Hook >= uint32(bpf.VonetXosProgramXOS_PROGRAMS) || len(d.Command) > 16 {
			t.Errorf("decoded %+v", d)
		}
		if err := denial.NewWindow(&log{}, names{}, nil).Add(t.Context(), d); err != nil {
			t.Error(err)
		}
	})
}

type log struct{ records []audit.Record }

func (l *log) Append(_ context.Context, r audit.Record) error {
	l.records = append(l.records, r)
	return nil
}

type names struct{}

func (names) VO(num uint32) xos.VOName {
	return map[uint32]xos.VOName{1: "chemistry", 2: "physics"}[num]
}

func (names) Account(uid uint32) (xos.Account, bool) {
	a, ok := map[uint32]xos.Account{7: {User: "carol", VO: "chemistry"}, 8: {User: "alice", VO: "physics"}}[uid]
	return a, ok
}

func (names) Hook(id uint32) (name, aim string) {
	switch bpf.VonetXosProgram(id) {
	case bpf.VonetXosProgramXOS_SOCK_CREATE:
		return "sock_create", "network"
	case bpf.VonetXosProgramXOS_CONNECT4, bpf.VonetXosProgramXOS_CONNECT6:
		return "connect", "network"
	case bpf.VonetXosProgramXOS_DEVICE:
		return "device", "devices"
	case bpf.VonetXosProgram(bpf.LsmXosHookXOS_SOCKET_CREATE):
		return "socket_create", "sockets"
	}
	return "task_kill", "signals"
}

func (names) Executable(pid uint32, f denial.File) string {
	if pid == 99 && f.Inode == 66 {
		return "/usr/bin/kill"
	}
	return ""
}

func (names) Job(cgroup uint64) xos.JobID {
	if cgroup == 77 {
		return "core-7f3a"
	}
	return ""
}

func TestWindowTellsEachOnceAndCountsTheRest(t *testing.T) {
	var l log
	w := denial.NewWindow(&l, names{}, map[uint32]uint64{1: 3})
	d := denial.Denial{Hook: 1, VO: 1, ObjectVO: 2, UID: 7, PID: 99, ObjectUID: 8, Object: 4711, Command: "kill",
		Cgroup: 77, Executable: denial.File{Device: 8<<20 | 2, Inode: 66}}
	for range 10 {
		if err := w.Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.records) != 1 {
		t.Fatalf("before the window ends: %+v", l.records)
	}
	want := audit.Record{Actor: "carol@chemistry", Action: "isolation.signals", Subject: "process 4711 of alice@physics", VO: "chemistry", User: "carol",
		Reason: "the kernel's check task_kill keeps VOs apart",
		Detail: map[string]string{"rule": "task_kill", "pid": "99", "command": "kill", "executable": "/usr/bin/kill", "job": "core-7f3a"}}
	if diff := cmp.Diff(want, l.records[0]); diff != "" {
		t.Error(diff)
	}
	if err := w.End(t.Context(), map[uint32]uint64{1: 3}); err != nil {
		t.Fatal(err)
	}
	want.Detail["repeated"] = "9"
	if diff := cmp.Diff(want, l.records[1]); diff != "" || len(l.records) != 2 {
		t.Errorf("%d records; %s", len(l.records), diff)
	}
	// What runs something else by now is told by number.
	d.Executable.Inode, d.Cgroup = 67, 1
	if err := w.Add(t.Context(), d); err != nil || len(l.records) != 3 {
		t.Fatalf("in the next window there are %d records (%v)", len(l.records), err)
	}
	if detail := l.records[2].Detail; detail["executable"] != "file 8:2 inode 67" || detail["job"] != "" {
		t.Errorf("without names: %v", detail)
	}
}

// TestObjects: what the network and device programs refuse is named.
func TestObjects(t *testing.T) {
	for _, tc := range []struct {
		program                 bpf.VonetXosProgram
		why                     bpf.VonetXosCount
		change                  func(*bpf.VonetXosDenial)
		action, subject, reason string
	}{
		{bpf.VonetXosProgramXOS_CONNECT4, bpf.VonetXosCountXOS_COUNT_OTHER_VO, func(r *bpf.VonetXosDenial) {
			r.Endpoint.Family, r.Endpoint.Protocol = 2, 6
			r.Endpoint.Address[0], r.Endpoint.Port = wire32(10, 1, 2, 3), wire16(8080)
		}, "isolation.network", "tcp 10.1.2.3:8080 of VO physics", "the port is another VO's"},
		{bpf.VonetXosProgramXOS_CONNECT6, bpf.VonetXosCountXOS_COUNT_OTHER_VO, func(r *bpf.VonetXosDenial) {
			r.Endpoint.Family, r.Endpoint.Protocol = 10, 17
			r.Endpoint.Address[3], r.Endpoint.Port = wire32(0, 0, 0, 1), wire16(53)
		}, "isolation.network", "udp [::1]:53 of VO physics", "the port is another VO's"},
		{bpf.VonetXosProgramXOS_SOCK_CREATE, bpf.VonetXosCountXOS_COUNT_PROTOCOL, func(r *bpf.VonetXosDenial) {
			r.ObjectVo, r.Endpoint.Family, r.Endpoint.Protocol, r.Endpoint.Type = 0, 2, 262, 1
		}, "isolation.network", "socket of IPv4 and mptcp", "a socket of this protocol cannot be labelled with its VO"},
		{bpf.VonetXosProgram(bpf.LsmXosHookXOS_SOCKET_CREATE), 0, func(r *bpf.VonetXosDenial) {
			r.ObjectVo, r.Object.Id, r.Object.Dev = 0, 40, 1
		}, "isolation.sockets", "socket of vsock", "the kernel's check socket_create keeps VOs apart"},
		{bpf.VonetXosProgram(bpf.LsmXosHookXOS_SOCKET_CREATE), 0, func(r *bpf.VonetXosDenial) {
			r.ObjectVo, r.Object.Id, r.Object.Dev, r.Object.Uid = 0, 16, 2, 11
		}, "isolation.sockets", "socket of netlink, protocol 11", "the kernel's check socket_create keeps VOs apart"},
		{bpf.VonetXosProgramXOS_DEVICE, bpf.VonetXosCountXOS_COUNT_DEVICE, func(r *bpf.VonetXosDenial) {
			r.Object.Dev, r.Object.Id = 195<<20|255, 6<<16|2
		}, "isolation.devices", "character device 195:255, to read and write", "the VO was not given this device"},
	} {
		raw := bpf.VonetXosDenial{Vo: 1, ObjectVo: 2, Uid: 7, Pid: 99, Hook: uint32(tc.program), Why: uint32(tc.why)}
		tc.change(&raw)
		var b bytes.Buffer
		if err := binary.Write(&b, binary.NativeEndian, raw); err != nil {
			t.Fatal(err)
		}
		d, err := denial.Decode(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var l log
		if err := denial.NewWindow(&l, names{}, nil).Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if r := l.records[0]; r.Action != tc.action || r.Subject != tc.subject || r.Reason != tc.reason || r.Actor != "carol@chemistry" {
			t.Errorf("%+v", r)
		}
	}
}

// wire32 and wire16 are numbers whose bytes in memory are in this order.
func wire32(b ...byte) uint32 { return binary.NativeEndian.Uint32(b) }

func wire16(n uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)}) }

// TestPortsAreToldApart: who tries many is not told of as having tried one.
func TestPortsAreToldApart(t *testing.T) {
	var l log
	w := denial.NewWindow(&l, names{}, nil)
	for port := range uint16(5) {
		d := denial.Denial{Hook: uint32(bpf.VonetXosProgramXOS_CONNECT4), VO: 1, ObjectVO: 2, UID: 7, PID: 99,
			Endpoint: denial.Endpoint{Family: 2, Protocol: 6, At: netip.AddrPortFrom(netip.IPv4Unspecified(), port)}}
		if err := w.Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.records) != 5 {
		t.Errorf("5 ports are told in %d lines", len(l.records))
	}
}

// flood adds n refusals of a VO's, each by another process.
func flood(t *testing.T, w *denial.Window, vo uint32, n int) {
	t.Helper()
	for i := range n {
		if err := w.Add(t.Context(), denial.Denial{Hook: 1, VO: vo, ObjectVO: 2, UID: 7, PID: uint32(i % 1000), ObjectUID: 8}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWindowIsBounded floods it: every refusal is accounted for, in few lines.
func TestWindowIsBounded(t *testing.T) {
	var l log
	w := denial.NewWindow(&l, names{}, nil)
	const many = 10000
	flood(t, w, 1, many)
	if err := w.End(t.Context(), map[uint32]uint64{1: 5}); err != nil {
		t.Fatal(err)
	}
	if len(l.records) > 51 {
		t.Errorf("%d lines", len(l.records))
	}
	if told, lost := l.sum(t, "chemistry"); told != many || lost != 5 {
		t.Errorf("%d of %d refusals are told, %d lost", told, many, lost)
	}
}

// TestFloodHidesNobody: however many VOs are refused without end, one that is
// refused little is told of by name and at once; and the lines stay few.
func TestFloodHidesNobody(t *testing.T) {
	var l log
	w := denial.NewWindow(&l, names{}, map[uint32]uint64{1: 100})
	const floods, many = 30, 2000
	for vo := range uint32(floods) {
		flood(t, w, 100+vo, many)
	}
	flood(t, w, 1, many)
	before := len(l.records)
	flood(t, w, 2, 1)
	if len(l.records) != before+1 || l.records[before].VO != "physics" {
		t.Errorf("a quiet VO's refusal is not told at once: %+v", l.records[before:])
	}
	if err := w.End(t.Context(), map[uint32]uint64{1: 107, 100: 3}); err != nil {
		t.Fatal(err)
	}
	if told, lost := l.sum(t, "chemistry"); told != many || lost != 7 {
		t.Errorf("chemistry: %d told, %d lost", told, lost)
	}
	if told, lost := l.sum(t, "physics"); told != 1 || lost != 0 {
		t.Errorf("physics: %d told, %d lost", told, lost)
	}
	if told, lost := l.sum(t, ""); told != floods*many || lost != 3 {
		t.Errorf("others: %d told, %d lost", told, lost)
	}
	if most := 2*200 + 2*(floods+2); len(l.records) > most {
		t.Errorf("%d lines, want at most %d", len(l.records), most)
	}
	// The next window has room again.
	before = len(l.records)
	flood(t, w, 1, 1)
	if len(l.records) != before+1 {
		t.Error("the next window tells nothing")
	}
}

// sum adds up what is told of a VO.
func (l *log) sum(t *testing.T, vo xos.VOName) (told, lost uint64) {
	t.Helper()
	for _, r := range l.records {
		switch {
		case r.VO != vo:
		case r.Detail["unnamed"] != "":
			told += count(t, r.Detail["unnamed"])
			lost += count(t, r.Detail["lost"])
		case r.Detail["repeated"] != "":
			told += count(t, r.Detail["repeated"])
		default:
			told++
		}
	}
	return told, lost
}

func count(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
