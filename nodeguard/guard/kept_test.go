package guard_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/bpf"
)

// kept is a bpffs with what a stage leaves in force for the next, "" if there is none.
var kept string

// pins gives a directory for a guard's pins. Where there are LSM programs one stage
// takes over those of the stage before, as a daemon's successor does: they take an
// emulated machine seconds to load, and seconds to let go. What the stage before had in
// its maps is not in them any more.
func pins(t *testing.T) string {
	t.Helper()
	if os.Getenv("XOS_LSM") == "" {
		dir := t.TempDir()
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		return filepath.Join(dir, "xos")
	}
	if kept == "" {
		dir, err := os.MkdirTemp("", "xos-pins-")
		if err != nil {
			t.Fatal(err)
		}
		kept = dir
	}
	at := filepath.Join(kept, "xos")
	t.Cleanup(func() {
		if t.Failed() {
			letGo()
		} else if err := empty(at); err != nil {
			t.Error(err)
			letGo()
		}
	})
	return at
}

// program copies the test binary, once, to where every uid can run it: to /tmp, since not
// every /run lets programs run. All stages have the one, which is an emulated machine's
// second to write.
var program = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(programAt, data, 0o755)
	}
	return programAt, err
})

var programAt = fmt.Sprintf("/tmp/xos-test-%d", os.Getpid())

// letGo ends what is kept of guards.
func letGo() {
	if kept != "" {
		unix.Unmount(kept, unix.MNT_DETACH)
		os.Remove(kept)
		kept = ""
	}
}

// empty makes all maps that are pinned in a directory what new ones are. One goes on:
// threads go by the count of changes of labels, and would take it that they know
// what is not so any more.
func empty(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		if filepath.Base(name) == bpf.LsmMapLabelChanges {
			continue
		}
		m, lerr := ebpf.LoadPinnedMap(name, nil)
		if lerr != nil {
			continue // a link
		}
		err = errors.Join(err, emptied(m))
		m.Close()
	}
	return err
}

// emptied empties a map; what is kept in sockets and threads goes with them.
func emptied(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.Hash, ebpf.PerCPUHash:
		// All are found first: the kernel looks for the first through all that are empty.
		var keys [][]byte
		key := make([]byte, m.KeySize())
		err := m.NextKey(nil, &key)
		for ; err == nil; err = m.NextKey(keys[len(keys)-1], &key) {
			keys = append(keys, bytes.Clone(key))
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for _, key := range keys {
			if err := m.Delete(key); err != nil {
				return err
			}
		}
	case ebpf.Array, ebpf.PerCPUArray:
		for i := range m.MaxEntries() {
			if err := zeroed(m, i); err != nil {
				return err
			}
		}
	case ebpf.ArrayOfMaps:
		if err := m.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	case ebpf.RingBuf:
		r, err := ringbuf.NewReader(m)
		if err != nil {
			return err
		}
		defer r.Close()
		r.SetDeadline(time.Now())
		for err == nil {
			_, err = r.Read()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	case ebpf.SkStorage, ebpf.TaskStorage:
	default:
		return fmt.Errorf("nothing is known of maps like %s", m)
	}
	return nil
}

// zeroed writes zeros where others are.
func zeroed(m *ebpf.Map, i uint32) error {
	none := make([]byte, m.ValueSize())
	if m.Type() == ebpf.Array {
		return m.Put(i, none)
	}
	var each [][]byte
	if err := m.Lookup(i, &each); err != nil {
		return err
	}
	for _, of := range each {
		for _, b := range of {
			if b != 0 {
				all := make([][]byte, len(each))
				for i := range all {
					all[i] = none
				}
				return m.Put(i, all)
			}
		}
	}
	return nil
}
