package threads_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/infra/threads"
)

// TestReserve: calls wait in the kernel at once, and none of them needs a thread that
// was not there. The scheduler has a few for itself.
func TestReserve(t *testing.T) {
	if os.Getenv("XOS_RESERVED") == "" {
		// In a process in which nothing else has made threads.
		again := exec.Command(os.Args[0], "-test.run=^TestReserve$", "-test.v")
		again.Env = append(os.Environ(), "XOS_RESERVED=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const waiting = 6
	threads.Reserve(waiting + 4)
	before, _ := count(t, nil)
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
	reads := map[string]bool{}
	for _, p := range pipes {
		reads[fmt.Sprintf("%d %#x", unix.SYS_READ, p[0])] = true
	}
	all, reading := count(t, reads)
	for deadline := time.Now().Add(20 * time.Second); reading < waiting && time.Now().Before(deadline); all, reading = count(t, reads) {
		time.Sleep(time.Millisecond)
	}
	// One may have been under way when the others were there.
	if reading < waiting || all > before+1 {
		t.Errorf("%d threads were there; now %d are, of which %d wait", before, all, reading)
	}
	for i := range ends {
		unix.Close(pipes[i][1])
		if err := <-ends[i]; err != nil {
			t.Error(err)
		}
	}
}

// count gives how many threads this process has, and how many of them wait in a call,
// named by its number and its first argument.
func count(t *testing.T, calls map[string]bool) (all, waiting int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads are there (%v)", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(task, "syscall"))
		if err != nil {
			t.Fatal(err)
		}
		if call := strings.Fields(string(text)); len(call) > 1 && calls[call[0]+" "+call[1]] {
			waiting++
		}
	}
	return len(tasks), waiting
}
