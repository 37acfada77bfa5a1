package main

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReserveThreads: calls wait in the kernel at once, and none of them needs a thread
// that was not there.
func TestReserveThreads(t *testing.T) {
	if os.Getenv("XOS_RESERVED") == "" {
		// In a process in which no other test has made threads.
		again := exec.Command(os.Args[0], "-test.run=^TestReserveThreads$", "-test.v")
		again.Env = append(os.Environ(), "XOS_RESERVED=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	reserveThreads(spareThreads)
	before := threads(t)
	var ends [waiting]chan error
	var pipes [waiting][2]int
	for i := range ends {
		if err := unix.Pipe2(pipes[i][:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		ends[i] = make(chan error, 1)
		go func() {
			_, err := unix.Read(pipes[i][0], make([]byte, 1))
			ends[i] <- err
		}()
	}
	time.Sleep(100 * time.Millisecond) // until the scheduler has given up on them
	if now := threads(t); now > before {
		t.Errorf("%d threads were there, now %d are", before, now)
	}
	for i := range ends {
		unix.Close(pipes[i][1])
		if err := <-ends[i]; err != nil {
			t.Error(err)
		}
	}
}

func threads(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
