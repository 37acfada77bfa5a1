package service_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/vom/credential/credtest"
)

// She is told in her terminals, and nobody else is, before it ends.
func TestRootWarning(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	uid := s.mustOpen(alice, cert)
	hers, others := newTerminal(t, uid), newTerminal(t, uid+1)
	for _, tt := range []struct {
		ahead time.Duration
		want  string
	}{{46 * time.Minute, "in 14m"}, {56 * time.Minute, "in 4m"}, {61 * time.Minute, "has ended"}} {
		s.setClock(tt.ahead)
		var got bytes.Buffer
		s.eventually(fmt.Sprintf("%v later she reads %q", tt.ahead, tt.want), func() bool {
			got.Write(hers())
			return strings.Contains(got.String(), tt.want) && strings.Contains(got.String(), "xos login alice@physics")
		})
	}
	if text := others(); len(text) > 0 {
		t.Errorf("another reads %q", text)
	}
}

// However many of her terminals are stopped, telling her holds up nothing: the
// credentials of others are renewed by the same hand.
func TestRootWarningWaitsForNoTerminal(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	uid := s.mustOpen(alice, cert)
	for range 40 {
		newStopped(t, uid)
	}
	reads := newTerminal(t, uid)
	s.setClock(46 * time.Minute)
	began := time.Now()
	var got bytes.Buffer
	s.eventually("she reads it where she can", func() bool {
		got.Write(reads())
		return strings.Contains(got.String(), "in 14m")
	})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// newStopped makes one whose output is stopped, as by Ctrl-S.
func newStopped(t *testing.T, uid uint32) {
	t.Helper()
	_, terminal := makeTerminal(t, uid)
	if err := unix.IoctlSetInt(int(terminal.Fd()), unix.TCXONC, 0); err != nil { // TCOOFF
		t.Fatal(err)
	}
}

// newTerminal makes a user's terminal and gives what reads its screen.
func newTerminal(t *testing.T, uid uint32) func() []byte {
	t.Helper()
	master, _ := makeTerminal(t, uid)
	return func() []byte {
		b := make([]byte, 4096)
		n, err := unix.Read(master, b)
		if err != nil {
			return nil
		}
		return b[:n]
	}
}

func makeTerminal(t *testing.T, uid uint32) (master int, terminal *os.File) {
	t.Helper()
	var err error
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(master) })
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	path := "/dev/pts/" + strconv.Itoa(n)
	keep, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keep.Close() })
	if err := os.Chown(path, int(uid), -1); err != nil {
		t.Fatal(err)
	}
	return master, keep
}
