package fuse_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// record is the n-th that a writer appends; records have many lengths.
func record(n int) []byte {
	return []byte(fmt.Sprintf("record %08d %s\n", n, strings.Repeat(string(rune('a'+n%26)), n*7919%9000)))
}

// writerVariable makes a copy of the test program a writer: what it has open
// on a mount must not hinder the test program from starting a service.
const writerVariable = "XOS_XFS_WRITER"

// writer is a process that writes in a manner, and tells what is durable.
type writer struct {
	path   string
	synced atomic.Int64 // number of the last thing that is durable
	cmd    *exec.Cmd
	in     io.Closer
	done   chan error
}

// start starts a writer, of "records" or "versions", behind number from.
func start(t *testing.T, manner, path string, from int64) *writer {
	t.Helper()
	w := &writer{path: path, done: make(chan error, 1)}
	w.synced.Store(from)
	w.cmd = exec.Command(os.Args[0], manner, path, strconv.FormatInt(from, 10))
	w.cmd.Env = append(os.Environ(), writerVariable+"=1")
	in, err := w.cmd.StdinPipe()
	must(t, err)
	w.in = in
	out, err := w.cmd.StdoutPipe()
	must(t, err)
	var said bytes.Buffer
	w.cmd.Stderr = &said
	must(t, w.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				w.synced.Store(n)
			}
		}
		err := w.cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said.String())
		}
		w.done <- err
	}()
	t.Cleanup(func() { w.cmd.Process.Kill() })
	return w
}

// writeOn is the writer's process.
func writeOn(args []string) error {
	write, from, path := saveVersions, 0, args[1]
	if args[0] == "records" {
		write = appendRecords
	}
	fmt.Sscan(args[2], &from)
	var stop atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	return write(path, int64(from), stop.Load)
}

// appendRecords appends numbered records to a file, each with an fsync.
func appendRecords(path string, n int64, stop func() bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for !stop() {
		if _, err := f.Write(record(int(n))); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		n++
		fmt.Println(n)
	}
	return f.Close()
}

func version(n int64) []byte { return fill(50_000+int(n)%7*10_000, "editor", int(n)) }

// saveVersions saves a file as editors do, again and again.
func saveVersions(path string, n int64, stop func() bool) error {
	for !stop() {
		n++
		f, err := os.Create(path + ".new")
		if err != nil {
			return err
		}
		if _, err = f.Write(version(n)); err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

// more waits until so many more records are durable.
func (r *writer) more(t *testing.T, n int64) {
	t.Helper()
	want := r.synced.Load() + n
	for deadline := time.Now().Add(30 * time.Second); r.synced.Load() < want; time.Sleep(time.Millisecond) {
		select {
		case err := <-r.done:
			t.Fatalf("the writer ended after %d records: %v", r.synced.Load(), err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the writer stands still at record %d", r.synced.Load())
		}
	}
}

func (r *writer) end(t *testing.T) {
	t.Helper()
	r.in.Close()
	if err := <-r.done; err != nil {
		t.Fatalf("after %d records: %v", r.synced.Load(), err)
	}
}

// wantRecords checks that a file begins with the first n records, whole.
func wantRecords(t *testing.T, path string, n int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	for i := range int(n) {
		want := record(i)
		if !bytes.HasPrefix(data, want) {
			t.Fatalf("%s: of %d durable records number %d is %.60q (%d bytes left)", path, n, i, data, len(data))
		}
		data = data[len(want):]
	}
}

// check sees that the file is the version saved last, or the one under way.
func (s *writer) check(t *testing.T, path string, atLeast int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	var n int64
	if _, err := fmt.Sscanf(string(data), "editor wrote round %d;", &n); err != nil || n < atLeast || n > s.synced.Load()+1 || !bytes.Equal(data, version(n)) {
		t.Fatalf("%s has %d bytes, version %d (%.40q), want one from %d to %d, whole", path, len(data), n, data, atLeast, s.synced.Load()+1)
	}
}

// TestRootKilledServices kills each service again and again under writers that
// know what is durable, and never see more than a delay.
func TestRootKilledServices(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	a, b := g.Mount("node1", client.Config{}).Dir(), g.Mount("node2", client.Config{}).Dir()
	for _, victim := range []struct {
		name string
		p    *xfstest.Process
	}{{"storage", g.OSD}, {"metadata", g.MRC}} {
		t.Run(victim.name, func(t *testing.T) {
			r := start(t, "records", filepath.Join(a, "records-"+victim.name), 0)
			s := start(t, "versions", filepath.Join(a, "saved-"+victim.name), 0)
			for range 4 {
				r.more(t, 10)
				s.more(t, 3)
				victim.p.Kill()
				n, last := r.synced.Load(), s.synced.Load()
				victim.p.Start()
				wantRecords(t, filepath.Join(b, filepath.Base(r.path)), n)
				s.check(t, filepath.Join(b, filepath.Base(s.path)), last)
			}
			r.more(t, 5)
			r.end(t)
			s.end(t)
			wantRecords(t, filepath.Join(b, filepath.Base(r.path)), r.synced.Load())
			s.check(t, filepath.Join(b, filepath.Base(s.path)), s.synced.Load())
		})
	}
}

// TestRootKilledMount kills the mount itself, at times with the storage.
func TestRootKilledMount(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	m := g.Mount("node1", client.Config{})
	saved := int64(0)
	for life := range 4 {
		r := start(t, "records", filepath.Join(m.Dir(), fmt.Sprint("records-", life)), 0)
		s := start(t, "versions", filepath.Join(m.Dir(), "saved"), saved)
		r.more(t, int64(10+life*7))
		s.more(t, 3)
		var both sync.WaitGroup
		both.Go(m.Kill)
		if life%2 == 1 {
			both.Go(g.OSD.Kill)
		}
		both.Wait()
		if err := <-r.done; err == nil {
			t.Fatal("the writer did not notice")
		}
		if err := <-s.done; err == nil {
			t.Fatal("the editor did not notice")
		}
		if life%2 == 1 {
			g.OSD.Start()
		}
		m.Start()
		wantRecords(t, r.path, r.synced.Load())
		s.check(t, s.path, s.synced.Load())
		saved = s.synced.Load() + 1
	}
}
