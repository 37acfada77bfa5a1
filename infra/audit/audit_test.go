package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
)

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestChainSurvivesReopeningAndWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for range 2 {
		l := open(t, path)
		if _, err := audit.Open(path); !xos.Is(err, xos.Conflict) {
			t.Errorf("a second writer: %v", err)
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				r := audit.Record{Actor: "root", Action: "test", Subject: fmt.Sprint(i), Allowed: i%2 == 0, Reason: strings.Repeat("ü\n\"", 500)}
				if err := l.Append(context.Background(), r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		l.Close()
		if err := l.Append(context.Background(), audit.Record{}); err == nil {
			t.Error("a closed log took a record")
		}
	}
	seq, _, err := audit.Verify(path)
	if err != nil || seq != 40 {
		t.Errorf("verify: %d, %v", seq, err)
	}
	l := open(t, path)
	got, err := l.Query(audit.Filter{Denied: true, Action: "test", Last: 3})
	if err != nil || len(got) != 3 || got[0].Allowed || got[2].Seq <= got[0].Seq {
		t.Errorf("query: %v, %v", got, err)
	}
	if n, hash := l.Head(); n != 40 || len(hash) != 64 {
		t.Errorf("head %d %s", n, hash)
	}
}

func TestTamperingShows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for i := range 5 {
		if err := l.Append(context.Background(), audit.Record{Actor: "root", Action: "add", Subject: fmt.Sprint("user", i), Allowed: true}); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	for name, bad := range map[string][]byte{
		"changed":    bytes.Replace(good, []byte("user2"), []byte("user7"), 1),
		"removed":    bytes.Join([][]byte{lines[0], lines[2], lines[3], lines[4]}, nil),
		"swapped":    bytes.Join([][]byte{lines[0], lines[2], lines[1], lines[3], lines[4]}, nil),
		"repeated":   bytes.Join([][]byte{lines[0], lines[0], lines[1]}, nil),
		"no json":    bytes.Join([][]byte{lines[0], []byte("x\n")}, nil),
		"first gone": bytes.Join(lines[1:], nil),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := audit.Verify(path); !xos.Is(err, xos.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTornLineIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	if err := l.Append(context.Background(), audit.Record{Actor: "root", Action: "one", Allowed: true}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"seq":2,"ti`)
	f.Close()
	l = open(t, path)
	if err := l.Append(context.Background(), audit.Record{Actor: "root", Action: "two", Allowed: true}); err != nil {
		t.Fatal(err)
	}
	if seq, _, err := audit.Verify(path); err != nil || seq != 2 {
		t.Errorf("%d, %v", seq, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"seq\":1,\"prev\":\"00\"}\n"))
	f.Add([]byte("\n\n{"))
	f.Add(bytes.Repeat([]byte("{\"seq\":1,\"subject\":\"alice@physics\"}\n"), 9000))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		audit.Verify(path)
		for _, before := range []uint64{0, 2} {
			got, err := audit.Query(path, audit.Filter{Last: 2, Before: before})
			if len(got) > 2 || err != nil && !xos.Is(err, xos.Invalid) {
				t.Fatalf("%d entries, %v", len(got), err)
			}
		}
		l, err := audit.Open(path)
		if err != nil {
			return
		}
		defer l.Close()
		if err := l.Append(context.Background(), audit.Record{Action: "x"}); err != nil {
			t.Fatal(err)
		}
	})
}
