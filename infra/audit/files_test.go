package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
)

func add(t *testing.T, l *audit.Log, n int) {
	t.Helper()
	for range n {
		if err := l.Append(context.Background(), audit.Record{Actor: "root", Action: "test", Subject: "alice@physics", Allowed: true}); err != nil {
			t.Fatal(err)
		}
	}
}

func openWith(t *testing.T, path string, opts ...audit.Option) *audit.Log {
	t.Helper()
	l, err := audit.Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// asides are the files that were put aside, oldest first.
func asides(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func whole(t *testing.T, path string, want uint64) {
	t.Helper()
	if seq, _, err := audit.Verify(path); err != nil || seq != want {
		t.Fatalf("verify: %d, %v, want %d", seq, err, want)
	}
}

// A log in many files is one log: writers, readers and those who verify it at
// the same time see each entry once.
func TestManyFilesAreOneLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, path, audit.FileMax(4000))
	const writers, each = 8, 60
	done := make(chan struct{})
	var readers, wg sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, _, err := l.Verify(); err != nil {
					t.Error(err)
				}
				got, err := l.Query(audit.Filter{Last: 50})
				if err != nil {
					t.Error(err)
				}
				for i := 1; i < len(got); i++ {
					if got[i].Seq != got[i-1].Seq+1 {
						t.Errorf("%d after %d", got[i].Seq, got[i-1].Seq)
					}
				}
			}
		})
	}
	for range writers {
		wg.Go(func() { add(t, l, each) })
	}
	wg.Wait()
	close(done)
	readers.Wait()
	if n := len(asides(t, path)); n < 5 {
		t.Fatalf("%d files were put aside: too few to tell", n)
	}
	whole(t, path, writers*each)
	for _, size := range []int{7, 100, 10000} {
		next := uint64(writers*each + 1)
		for next > 1 {
			page, err := audit.Query(path, audit.Filter{Before: next, Last: size})
			if err != nil || len(page) == 0 || page[len(page)-1].Seq != next-1 {
				t.Fatalf("page of %d before %d: %d, %v", size, next, len(page), err)
			}
			next = page[0].Seq
		}
	}
	l.Close()
	l = openWith(t, path, audit.FileMax(4000))
	add(t, l, 1)
	whole(t, path, writers*each+1)
}

// Whoever dies while a file is put aside leaves a log that goes on.
func TestDeathWhilePuttingAside(t *testing.T) {
	for name, leave := range map[string]func(path string) error{
		"the next file made":   func(path string) error { return os.WriteFile(path+".new", nil, 0o600) },
		"the old one has both": func(path string) error { return os.Link(path, path+".00000000000000000003") },
		"the next in place": func(path string) error {
			return errors.Join(os.Rename(path, path+".00000000000000000003"), os.WriteFile(path, nil, 0o600))
		},
		"its first line torn": func(path string) error {
			return errors.Join(os.Rename(path, path+".00000000000000000003"), os.WriteFile(path, []byte(`{"seq":4,`), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			l := openWith(t, path)
			add(t, l, 3)
			l.Close()
			if err := leave(path); err != nil {
				t.Fatal(err)
			}
			l = openWith(t, path, audit.FileMax(1))
			add(t, l, 3)
			whole(t, path, 6)
			got, err := l.Query(audit.Filter{})
			if err != nil || len(got) != 6 {
				t.Errorf("%d entries, %v", len(got), err)
			}
			if n := len(asides(t, path)); n < 2 || n > 5 {
				t.Errorf("files: %v", asides(t, path))
			}
		})
	}
}

func TestFilesTakenAwayAreMissed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, path, audit.FileMax(600))
	add(t, l, 16)
	l.Close()
	names := asides(t, path)
	if len(names) < 3 {
		t.Fatal(names)
	}
	for i, want := range map[int]string{0: "line 1 is missing", 1: "lines were removed"} {
		kept, err := os.ReadFile(names[i])
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(names[i])
		if _, _, err := audit.Verify(path); !xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("file %d away: %v", i, err)
		}
		if err := os.WriteFile(names[i], kept, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole(t, path, 16)
}

// Old files go, and the log says so: what is left is a chain, and only by that
// entry.
func TestOldFilesExpire(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "audit.log")
	opts := []audit.Option{audit.FileMax(600), audit.Keep(24 * time.Hour), audit.Clock(func() time.Time { return now })}
	l := openWith(t, path, opts...)
	add(t, l, 12)
	_, early, err := audit.Verify(path)
	if err != nil {
		t.Fatal(err)
	}
	before := len(asides(t, path))
	now = now.Add(23 * time.Hour)
	add(t, l, 12)
	if got := len(asides(t, path)); got < 2*before {
		t.Errorf("%d files of %d are left within the time", got, 2*before)
	}
	l.Close()

	now = now.Add(2 * time.Hour)
	l = openWith(t, path, opts...)
	seq, _, err := l.Verify()
	if err != nil || seq != 25 {
		t.Fatalf("after expiry: %d, %v", seq, err)
	}
	said, err := l.Query(audit.Filter{Action: "audit.expired"})
	if err != nil || len(said) != 1 {
		t.Fatalf("said: %v, %v", said, err)
	}
	last, err := strconv.Atoi(said[0].Detail["last"])
	if err != nil || last < 10 || last > 12 {
		t.Errorf("last is %q", said[0].Detail["last"])
	}
	left, err := l.Query(audit.Filter{Last: 100})
	if err != nil || left[0].Seq != uint64(last)+1 {
		t.Errorf("the first left is %d, %v", left[0].Seq, err)
	}
	if got, err := l.Query(audit.Filter{Before: uint64(last)}); err != nil || len(got) != 0 {
		t.Errorf("expired ones: %d, %v", len(got), err)
	}
	if _, _, err := l.Verify(audit.Mark{Seq: 3, Hash: strings.Repeat("1", 64)}); !xos.Is(err, xos.NotFound) {
		t.Errorf("a mark that expired: %v", err)
	}
	want := xos.NotFound
	if last == 12 {
		want = 0
	}
	if _, _, err := l.Verify(audit.Mark{Seq: 12, Hash: early}); err != nil && !xos.Is(err, want) {
		t.Errorf("a mark at the edge: %v", err)
	}

	// The next file that is taken away is missed: the entry does not name it.
	os.Remove(asides(t, path)[0])
	if _, _, err := l.Verify(); !xos.Is(err, xos.Invalid) {
		t.Errorf("a file of the right age was taken away: %v", err)
	}
}

// A log that cannot put its file aside still takes decisions, and says why.
func TestCannotPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, path, audit.FileMax(1000))
	if err := os.MkdirAll(filepath.Join(path+".new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, l, 9)
	said, err := l.Query(audit.Filter{Action: "audit.split", Denied: true})
	if err != nil || len(said) == 0 || len(said) > 3 {
		t.Fatalf("%d, %v", len(said), err)
	}
	whole(t, path, 9+uint64(len(said)))
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	add(t, l, 9)
	if len(asides(t, path)) == 0 {
		t.Error("not put aside once it could be")
	}
	whole(t, path, 18+uint64(len(said)))
}

func TestForeignNamesAreNoFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for _, name := range []string{".1", ".gz", ".0000000000000000000x", ".00000000000000000000", ".99999999999999999999"} {
		if err := os.WriteFile(path+name, bytes.Repeat([]byte("junk\n"), 10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", path+fmt.Sprintf(".%020d", 7)); err != nil {
		t.Fatal(err)
	}
	l := openWith(t, path)
	add(t, l, 2)
	whole(t, path, 2)
}
