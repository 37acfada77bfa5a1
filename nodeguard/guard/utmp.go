package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A record of utmp and wtmp, see utmp(5): its size, and where its time is, which
// the C library has 64 bits wide on some processors.
var recordSize, recordTime = recordLayout(runtime.GOARCH)

func recordLayout(arch string) (size, at int) {
	switch arch {
	case "arm64", "riscv64":
		return 400, 344
	}
	return 384, 340
}

// Types of records, see utmp(5).
const (
	initProcess = 5
	userProcess = 7
	deadProcess = 8
)

type record []byte

func (r record) kind() int    { return int(binary.NativeEndian.Uint16(r)) }
func (r record) pid() int     { return int(int32(binary.NativeEndian.Uint32(r[4:]))) }
func (r record) id() []byte   { return r[40:44] }
func (r record) user() string { s, _, _ := strings.Cut(string(r[44:76]), "\x00"); return s }

func (r record) time() time.Time {
	if recordSize == 400 {
		return time.Unix(int64(binary.NativeEndian.Uint64(r[recordTime:])), int64(binary.NativeEndian.Uint64(r[recordTime+8:]))*1000)
	}
	return time.Unix(int64(binary.NativeEndian.Uint32(r[recordTime:])), int64(binary.NativeEndian.Uint32(r[recordTime+4:]))*1000)
}

// isProcess says that a record has an id by which it is found.
func (r record) isProcess() bool { return r.kind() >= initProcess && r.kind() <= deadProcess }

func recordsIn(data []byte) []record {
	var list []record
	for ; len(data) >= recordSize; data = data[recordSize:] {
		list = append(list, record(data[:recordSize]))
	}
	return list
}

// locked opens a file that is there as the C library does for writing, with its
// lock, which others who keep such a file wait for, for a second at most.
func locked(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flags, 0)
	if err != nil {
		return nil, err
	}
	for range 100 {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if err != unix.EAGAIN && err != unix.EACCES {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// addUtmp tells the machine's utmp what a VO's says of who is logged in and out.
// Of two records of one terminal the newer is right: others log in on it later.
// Who was killed is recorded as logged in still, and is not told.
func addUtmp(own, machine string) error {
	data, err := os.ReadFile(own)
	if err != nil || len(data) < recordSize {
		return ignoreMissing(err)
	}
	f, err := locked(machine, 0)
	if err != nil {
		return ignoreMissing(err)
	}
	defer f.Close()
	there, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	slots := recordsIn(there)
	for _, r := range recordsIn(data) {
		if k := r.kind(); k != userProcess && k != deadProcess || k == userProcess && unix.Kill(r.pid(), 0) == unix.ESRCH {
			continue
		}
		at := len(slots)
		for i, s := range slots {
			if s.isProcess() && bytes.Equal(s.id(), r.id()) {
				at = i
				break
			}
		}
		if at == len(slots) {
			if r.kind() == deadProcess {
				continue
			}
			slots = append(slots, r)
		} else if !r.time().After(slots[at].time()) {
			continue
		}
		slots[at] = r
		if _, err := f.WriteAt(r, int64(at)*int64(recordSize)); err != nil {
			return err
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
