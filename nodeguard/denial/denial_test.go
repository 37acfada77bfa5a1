package denial_test

import (
	"bytes"
	"context"
	"encoding/binary"
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
	raw := bpf.LsmXosDenial{When: 5, ObjectVo: 2, Vo: 1, Uid: 7, Pid: 99, Hook: hook}
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
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, b := range map[string][]byte{
		"nothing":     nil,
		"too short":   sample(t, 1, "x")[:20],
		"too long":    append(sample(t, 1, "x"), 0),
		"no hook":     sample(t, 0, "x"),
		"hook beyond": sample(t, uint32(bpf.LsmXosHookXOS_HOOKS), "x"),
	} {
		if _, err := denial.Decode(b); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(f, 1, "sh"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := denial.Decode(b)
		if err != nil {
			return
		}
		if d.Hook == 0 || d.Hook >= uint32(bpf.LsmXosHookXOS_HOOKS) || len(d.Command) > 16 {
			t.Errorf("decoded %+v", d)
		}
		if err := denial.NewWindow(&log{}, names{}, 0).Add(t.Context(), d); err != nil {
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

func (names) Hook(uint32) (name, aim string) { return "task_kill", "signals" }

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
	w := denial.NewWindow(&l, names{}, 3)
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
	if err := w.End(t.Context(), 3); err != nil {
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

// TestWindowIsBounded floods it: every refusal is accounted for, in few lines.
func TestWindowIsBounded(t *testing.T) {
	var l log
	w := denial.NewWindow(&l, names{}, 0)
	const flood = 10000
	for i := range flood {
		d := denial.Denial{Hook: 1, VO: 1, ObjectVO: 2, UID: 7, PID: uint32(i % 1000), ObjectUID: 8}
		if err := w.Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if len(l.records) > 101 {
		t.Errorf("%d lines", len(l.records))
	}
	told, lost := uint64(0), uint64(0)
	for _, r := range l.records {
		switch {
		case r.Detail["unnamed"] != "":
			told += count(t, r.Detail["unnamed"])
			lost += count(t, r.Detail["lost"])
		case r.Detail["repeated"] != "":
			told += count(t, r.Detail["repeated"])
		default:
			told++
		}
	}
	if told != flood || lost != 5 {
		t.Errorf("%d of %d refusals are told, %d lost", told, flood, lost)
	}
}

func count(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
