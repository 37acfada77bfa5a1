// Hog eats one thing of a machine, as much as it gets, until it is ended: what
// a careless or hostile member of another VO would do.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"github.com/xtreemos/xos/infra/threads"
)

var appetites = map[string]func() error{
	"cpu": spin, "processes": fork, "memory": memory, "files": files, "files alone": alone, "reads": reads, "writes": writes,
	"syncs": func() error { return syncs("/var/tmp") }, "home": func() error { return syncs(os.Getenv("HOME")) },
}

func main() {
	var eat func() error
	if len(os.Args) == 2 {
		eat = appetites[os.Args[1]]
	}
	if eat == nil {
		fmt.Fprintln(os.Stderr, "usage: hog cpu|processes|memory|files|reads|writes|syncs|home")
		os.Exit(64)
	}
	if err := eat(); err != nil {
		fmt.Fprintln(os.Stderr, "hog:", err)
		os.Exit(1)
	}
}

// spin uses processors, with many threads.
func spin() error {
	for range 16 {
		if _, err := child(); err != nil {
			return err
		}
	}
	for {
	}
}

// child starts a program, a shell that spins if none is named.
func child(argv ...string) (int, error) {
	if len(argv) == 0 {
		argv = []string{"/bin/sh", "-c", "while :; do :; done"}
	}
	return syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: os.Environ()})
}

// fork starts processes, also when no more can be had.
func fork() error {
	threads.Reserve(16) // it goes on where it can have no more
	for told := false; ; {
		_, err := child("/bin/sleep", "1000")
		if err != nil {
			if !told {
				fmt.Println("no more processes:", err)
				told = true
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// memory touches pages, for ever.
func memory() error {
	const step = 4 << 20
	for n := 0; ; n += step {
		b, err := syscall.Mmap(-1, 0, step, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
	}
}

// files opens what it may, and so do its children: sockets, since the kernel's
// memory for one is many times that for a file.
func files() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range 16 {
		if _, err := child(self, "files alone"); err != nil {
			fmt.Println("no more processes:", err)
			break
		}
	}
	return alone()
}

func alone() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	for {
		if _, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			// Not time.Sleep: a first timer of Go's needs a file.
			_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 1e6}, nil)
		}
	}
}

// reads goes past the cache, so that what it is given can be counted.
func reads() error {
	var names []string
	err := filepath.WalkDir("/usr/lib", func(name string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	buffer := aligned(1 << 20)
	for {
		read := 0
		for _, name := range names {
			f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
			if err != nil {
				continue
			}
			for n := 1; n > 0; {
				n, _ = f.Read(buffer)
				read += n
			}
			f.Close()
		}
		if read == 0 {
			return errors.New("nothing below /usr/lib can be read")
		}
	}
}

// aligned gives memory that the kernel reads a disk into.
func aligned(size int) []byte {
	raw := make([]byte, size+4096)
	at := 4096 - int(uintptr(unsafe.Pointer(&raw[0]))%4096)
	return raw[at : at+size]
}

// writes goes past the cache likewise.
func writes() error {
	dir, err := os.MkdirTemp("/var/tmp", "hog-")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	const size, most = 1 << 20, 64 << 20
	buffer := aligned(size)
	for off := int64(0); ; off = (off + size) % most {
		if _, err := f.WriteAt(buffer, off); err != nil {
			return err
		}
	}
}

// syncs has a file system's journal, or its servers, written from many threads.
func syncs(where string) error {
	dir, err := os.MkdirTemp(where, "hog-")
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i := range 8 {
		go func() {
			name := filepath.Join(dir, fmt.Sprint(i))
			for {
				f, err := os.Create(name + ".new")
				if err == nil {
					_, err = f.Write(make([]byte, 4096))
				}
				if err == nil {
					err = f.Sync()
				}
				if err == nil {
					err = f.Close()
				}
				if err == nil {
					err = os.Rename(name+".new", name)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}
