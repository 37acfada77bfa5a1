package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// watch tells what happens in directories, see inotify(7).
type watch struct {
	events *os.File
	stop   func() bool
	dirs   map[int32]string
	buffer []byte
}

type event struct {
	dir, name string
	mask      uint32
}

// newWatch ends with ctx, or Close.
func newWatch(ctx context.Context) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{events: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, buffer: make([]byte, 64<<10)}
	w.stop = context.AfterFunc(ctx, func() { w.events.Close() })
	return w, nil
}

func (w *watch) Close() error {
	w.stop()
	return w.events.Close()
}

func (w *watch) add(dir string, mask uint32) error {
	c, err := w.events.SyscallConn()
	if err != nil {
		return err
	}
	failed := c.Control(func(fd uintptr) {
		var id int
		if id, err = unix.InotifyAddWatch(int(fd), dir, mask|unix.IN_ONLYDIR); err == nil {
			w.dirs[int32(id)] = dir
		}
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return nil
}

// next waits for events.
func (w *watch) next() ([]event, error) {
	n, err := w.events.Read(w.buffer)
	if err != nil {
		return nil, err
	}
	var list []event
	for rest := w.buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
		id, mask, size := int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[4:]), int(binary.NativeEndian.Uint32(rest[12:]))
		name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], []byte{0})
		list = append(list, event{w.dirs[id], string(name), mask})
		rest = rest[unix.SizeofInotifyEvent+size:]
	}
	return list, nil
}
