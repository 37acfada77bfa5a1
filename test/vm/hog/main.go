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
)

var appetites = map[string]func() error{
	"cpu": spin, "processes": fork, "memory": memory, "files": files, "writes": writes, "syncs": syncs,
}

func main() {
	var eat func() error
	if len(os.Args) == 2 {
		eat = appetites[os.Args[1]]
	}
	if eat == nil {
		fmt.Fprintln(os.Stderr, "usage: hog cpu|processes|memory|files|writes|syncs")
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

// files opens what it may and has children do the same.
func files() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	told := false
	for {
		_, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
		if err == nil {
			continue
		}
		if !told {
			fmt.Println("no more files:", err)
			told = true
		}
		if errors.Is(err, syscall.EMFILE) {
			_, err = child(os.Args...)
		}
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

// scratch is a directory on the machine's disk.
func scratch() (string, error) { return os.MkdirTemp("/var/tmp", "hog-") }

// writes goes past the cache, so that what it is given can be counted.
func writes() error {
	dir, err := scratch()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	const size, most = 1 << 20, 64 << 20
	raw := make([]byte, size+4096)
	at := 4096 - int(uintptr(unsafe.Pointer(&raw[0]))%4096)
	for off := int64(0); ; off = (off + size) % most {
		if _, err := f.WriteAt(raw[at:at+size], off); err != nil {
			return err
		}
	}
}

// syncs has the journal of the file system written, from many threads.
func syncs() error {
	dir, err := scratch()
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
