package fuse_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// disturb does each kind of harm to a connection once, and lets it heal.
func disturb(p *xfstest.Proxy, between func()) {
	for _, harm := range []func(){
		p.Break,
		func() { p.BreakAfter(100_000) },
		func() { p.BreakAfter(1234) },
		func() { p.Cut(); time.Sleep(200 * time.Millisecond); p.Heal() },
		func() { p.Stall(); time.Sleep(700 * time.Millisecond); p.Heal() },
		func() { p.HalfClose(true) },
		func() { p.HalfClose(false) },
	} {
		harm()
		between()
	}
}

// TestRootBrokenNetwork breaks the ways to both services in every manner while
// files are written and read: there are delays, and no errors and no losses.
func TestRootBrokenNetwork(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	a := g.Mount("node1", client.Config{Attempt: 500 * time.Millisecond}).Dir()
	b := g.Mount("node2", client.Config{Attempt: 500 * time.Millisecond}).Dir()
	big := fill(5<<20, "reader", 1)
	must(t, os.WriteFile(filepath.Join(a, "big"), big, 0o600))
	r := start(t, "records", filepath.Join(a, "records"), 0)
	var reads atomic.Int64
	stop, read := make(chan struct{}), make(chan error, 1)
	go func() { read <- readAgain(filepath.Join(b, "big"), big, &reads, stop) }()
	between := func() {
		before := reads.Load()
		r.more(t, 10)
		eventually(t, "the reader goes on", func() bool { return reads.Load() > before })
	}
	between()
	disturb(g.ToOSD, between)
	disturb(g.ToMRC, between)
	r.end(t)
	close(stop)
	must(t, <-read)
	wantRecords(t, filepath.Join(b, "records"), r.synced.Load())
}

// readAgain reads a file from the storage until stop, and compares.
func readAgain(path string, want []byte, reads *atomic.Int64, stop chan struct{}) error {
	got := make([]byte, len(want))
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = dropPages(f)
		n := 0
		if err == nil {
			n, err = f.ReadAt(got, 0)
		}
		f.Close()
		if err != nil {
			return err
		}
		if n != len(want) || !bytes.Equal(got, want) {
			return fmt.Errorf("read %d bytes that were never written so", n)
		}
		reads.Add(1)
	}
}

// TestRootLongOutage: an outage longer than anybody waits is an error; what
// was durable before is there after it, and work goes on.
func TestRootLongOutage(t *testing.T) {
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	m := g.Mount("node1", client.Config{Attempt: 300 * time.Millisecond, Retry: time.Second})
	r := start(t, "records", filepath.Join(m.Dir(), "records"), 0)
	r.more(t, 10)
	g.ToOSD.Cut()
	if err := <-r.done; err == nil {
		t.Fatal("without storage all is said to be durable")
	}
	g.ToOSD.Heal()
	path := filepath.Join(m.Dir(), "again")
	eventually(t, "files can be written again", func() bool {
		f, err := os.Create(path)
		if err != nil {
			return false
		}
		defer f.Close()
		_, err = f.WriteString("again")
		return err == nil && f.Sync() == nil
	})
	wantRecords(t, r.path, r.synced.Load())
	must(t, m.Stop())
	m.Start()
	wantRecords(t, r.path, r.synced.Load())
	wantFile(t, path, []byte("again"))
}

// TestRootInterrupt: who waits for a service that is away can be ended by a
// signal, at whatever it waits; what others wrote is not lost by it.
func TestRootInterrupt(t *testing.T) {
	need.Command(t, "dd")
	t.Parallel()
	g := xfstest.StartGrid(t, 0)
	m := g.Mount("node1", client.Config{Buffers: 8 << 20})
	old := filepath.Join(m.Dir(), "old")
	must(t, os.WriteFile(old, fill(2<<20, "old", 1), 0o600))
	must(t, os.WriteFile(filepath.Join(m.Dir(), "shared"), nil, 0o600))
	for _, c := range []struct {
		name    string
		way     *xfstest.Proxy
		command string
	}{
		{"write", g.ToOSD, "exec dd if=/dev/zero of=big bs=1M count=64 2>&-"},
		{"fsync", g.ToOSD, "exec dd if=/dev/zero of=shared conv=fsync,notrunc bs=1000 count=10 2>&-"},
		{"read", g.ToOSD, "exec dd if=old of=/dev/null iflag=nocache bs=1M 2>&-"},
		{"truncate", g.ToOSD, "exec truncate -s 1000 old2"},
		{"create", g.ToMRC, "exec touch new"},
		{"look", g.ToMRC, "exec ls -l ."},
	} {
		for how, harm := range map[string]func(){"stalled": c.way.Stall, "cut": c.way.Cut} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				must(t, os.WriteFile(filepath.Join(m.Dir(), "old2"), fill(200_000, "old", 2), 0o600))
				f, err := os.Open(old)
				must(t, err)
				must(t, f.Sync())
				must(t, dropPages(f))
				f.Close()
				harm()
				defer c.way.Heal()
				cmd := exec.Command("sh", "-c", c.command)
				cmd.Dir = "/"
				cmd.Args[2] = "cd '" + m.Dir() + "' && " + c.command
				must(t, cmd.Start())
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				select {
				case err := <-ended:
					t.Fatalf("it did not wait: %v", err)
				case <-time.After(700 * time.Millisecond):
				}
				must(t, cmd.Process.Signal(syscall.SIGTERM))
				select {
				case err := <-ended:
					if err == nil {
						t.Error("it succeeded")
					}
				case <-time.After(5 * time.Second):
					t.Error("a signal does not end it")
					c.way.Heal()
					<-ended
				}
			})
		}
	}
	must(t, m.Stop())
	m.Start()
	wantFile(t, filepath.Join(m.Dir(), "shared"), make([]byte, 10_000)) // though the writer was ended
	wantFile(t, old, fill(2<<20, "old", 1))
}
