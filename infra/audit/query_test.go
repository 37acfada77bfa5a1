package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
)

// fill writes n lines, a second apart, as root would see them; every third is
// a refusal of bob@chemistry.
func fill(t *testing.T, n, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for i := 1; i <= n; i++ {
		r := audit.Record{Actor: "root", Action: "/xos.v1.VOs/AddMember", Subject: "alice@physics", VO: "physics", User: "alice", Allowed: true, Reason: strings.Repeat("x", size)}
		if i%3 == 0 {
			r = audit.Record{Actor: "10.0.0.1:1", Action: "issue", Subject: "bob@chemistry", Reason: "wrong password"}
		}
		if err := l.Append(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	return path
}

func numbers(entries []audit.Entry) (seqs []uint64) {
	for _, e := range entries {
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

func TestQueryFilters(t *testing.T) {
	path := fill(t, 12, 0)
	for _, tt := range []struct {
		name string
		f    audit.Filter
		want []uint64
	}{
		{"the last", audit.Filter{Last: 2}, []uint64{11, 12}},
		{"before", audit.Filter{Last: 2, Before: 11}, []uint64{9, 10}},
		{"before the first", audit.Filter{Before: 1}, nil},
		{"before more than there are", audit.Filter{Before: 99, Last: 1}, []uint64{12}},
		{"VO", audit.Filter{VO: "physics", Last: 3}, []uint64{8, 10, 11}},
		{"VO of a record that names none", audit.Filter{VO: "chemistry"}, []uint64{3, 6, 9, 12}},
		{"a VO's name is no prefix", audit.Filter{VO: "phys"}, nil},
		{"user", audit.Filter{User: "bob", Before: 9}, []uint64{3, 6}},
		{"user of another VO", audit.Filter{User: "bob", VO: "physics"}, nil},
		{"action by its last part", audit.Filter{Action: "AddMember", Before: 3}, []uint64{1, 2}},
		{"whole action", audit.Filter{Action: "/xos.v1.VOs/AddMember", Before: 2}, []uint64{1}},
		{"part of a word", audit.Filter{Action: "Member"}, nil},
		{"refusals", audit.Filter{Denied: true, Last: 1}, []uint64{12}},
		{"since", audit.Filter{Since: time.Now().Add(time.Hour)}, nil},
		{"until", audit.Filter{Until: time.Now().Add(-time.Hour)}, nil},
		{"subject", audit.Filter{Subject: "alice@physics", Before: 4}, []uint64{1, 2}},
	} {
		got, err := audit.Query(path, tt.f)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, numbers(got)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// Every page of a log of several blocks follows the other, however large a
// page or a line is.
func TestPages(t *testing.T) {
	path := fill(t, 1200, 300)
	if info, err := os.Stat(path); err != nil || info.Size() < 400<<10 {
		t.Fatalf("the log is too small to tell: %v, %v", info, err)
	}
	for _, size := range []int{1, 7, 333, 5000} {
		next, first := uint64(1201), uint64(1201)
		if size == 1 {
			first = 50 // enough of the smallest pages
			next = first
		}
		for first > 1 {
			page, err := audit.Query(path, audit.Filter{Before: first, Last: size})
			if err != nil || len(page) == 0 {
				t.Fatalf("before %d: %d, %v", first, len(page), err)
			}
			for i := len(page) - 1; i >= 0; i-- {
				if next--; page[i].Seq != next {
					t.Fatalf("pages of %d: got %d in place of %d", size, page[i].Seq, next)
				}
			}
			first = page[0].Seq
		}
	}
}

func TestQueryOfDamagedLogs(t *testing.T) {
	good, err := os.ReadFile(fill(t, 9, 0))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	path := filepath.Join(t.TempDir(), "audit.log")
	for _, tt := range []struct {
		name string
		data []byte
		want []uint64
		kind xos.Kind
	}{
		{"empty", nil, nil, 0},
		{"one torn line", []byte(`{"seq":1`), nil, 0},
		{"torn end", append(bytes.Clone(good), `{"seq":10,`...), []uint64{7, 8, 9}, 0},
		{"junk far before the page", append([]byte("junk\n"), good...), []uint64{7, 8, 9}, 0},
		{"junk in the page", bytes.Join([][]byte{lines[0], []byte("junk\n"), lines[1]}, nil), []uint64{2}, xos.Invalid},
		{"a line without end", bytes.Repeat([]byte("x"), 1<<20), nil, xos.Invalid},
		{"a line too long", append(bytes.Repeat([]byte("x"), 1<<20), '\n'), nil, xos.Invalid},
	} {
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, before := range []uint64{0, 1 << 60} {
			got, err := audit.Query(path, audit.Filter{Last: 3, Before: before})
			if tt.kind == 0 && err != nil || tt.kind != 0 && !xos.Is(err, tt.kind) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if d := cmp.Diff(tt.want, numbers(got)); d != "" {
				t.Errorf("%s: %s", tt.name, d)
			}
		}
	}
}

// Verify names the very line, whatever was done to the log.
func TestVerifyNamesTheLine(t *testing.T) {
	path := fill(t, 9, 0)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, head, err := audit.Verify(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	without := func(i int) []byte { return bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil) }
	for _, tt := range []struct {
		name  string
		data  []byte
		marks []audit.Mark
		want  uint64 // 0: whole
	}{
		{"whole", good, nil, 0},
		{"whole, with its head", good, []audit.Mark{{9, head}}, 0},
		{"another head", good, []audit.Mark{{9, strings.Repeat("0", 64)}}, 9},
		{"cut off", bytes.Join(lines[:6], nil), []audit.Mark{{9, head}}, 7},
		{"cut off, and nobody knows", bytes.Join(lines[:6], nil), nil, 0},
		{"line 4 changed", bytes.Replace(good, []byte(`"seq":4`), []byte(`"seq":4 `), 1), nil, 5},
		{"line 4 made an approval", bytes.Replace(good, []byte(`"seq":3,`), []byte(`"seq":3, `), 1), nil, 4},
		{"last line changed", bytes.Replace(good, []byte(`"seq":9`), []byte(`"seq":9 `), 1), []audit.Mark{{9, head}}, 9},
		{"line 5 removed", without(4), nil, 5},
		{"line 1 removed", without(0), nil, 1},
		{"junk as line 3", bytes.Join([][]byte{lines[0], lines[1], []byte("{\n"), lines[2]}, nil), nil, 3},
		{"a line too long", append(bytes.Clone(good), append(bytes.Repeat([]byte("y"), 1<<18), '\n')...), nil, 10},
	} {
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		seq, _, err := audit.Verify(path, tt.marks...)
		var broken *audit.Broken
		switch {
		case tt.want == 0 && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want > 0 && (!errors.As(err, &broken) || !xos.Is(err, xos.Invalid) || broken.Line != tt.want || seq != tt.want-1):
			t.Errorf("%s: %d, %v, want line %d", tt.name, seq, err, tt.want)
		}
	}
}

// An open log knows what it wrote: its end cannot be cut off unseen.
func TestOpenLogMissesItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for i := range 3 {
		if err := l.Append(context.Background(), audit.Record{Action: "x", Subject: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if seq, _, err := l.Verify(); err != nil || seq != 3 {
		t.Fatalf("%d, %v", seq, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(bytes.LastIndexByte(data[:len(data)-1], '\n')+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Verify(); !xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("cut off: %v", err)
	}
}
