package pamxos_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/session/wire/wiretest"
)

func hang(c *net.UnixConn) {
	c.Read(make([]byte, 4096))
	c.Read(make([]byte, 1))
}

func drip(c *net.UnixConn) {
	for range time.Tick(20 * time.Millisecond) {
		if _, err := c.Write([]byte{'X'}); err != nil {
			return
		}
	}
}

// queue makes a socket that holds one connection and accepts none, by a thread
// that is uid.
func queue(t *testing.T, path string, uid int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd)
		os.Remove(path)
	})
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this
		keep := ^uintptr(0)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
			done <- e
			return
		}
		done <- unix.Listen(fd, 0)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// testWithout: a service that is dead, wedged or an impostor holds nobody up
// for longer than was promised, and lets nobody in.
func testWithout(t *testing.T, h host) {
	patience := map[string]time.Duration{"acct_mgmt": 10 * time.Second, "open_session": 20 * time.Second}
	hasty(t, h)
	for _, c := range []struct {
		name, service string
		set           func(*testing.T)
		op            string
		least, most   time.Duration
	}{
		{"dead", "permits", func(*testing.T) {}, "", 0, 0},
		{"left behind", "permits", func(t *testing.T) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: h.Socket()})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			t.Cleanup(func() { os.Remove(h.Socket()) })
		}, "", 0, 0},
		{"closing", "permits", func(t *testing.T) { wiretest.Listen(t, h.Socket(), func(*net.UnixConn) {}) }, "", 0, 0},
		{"another's", "permits", func(t *testing.T) { queue(t, h.Socket(), 54321) }, "", 0, 0},
		{"full", "permits", func(t *testing.T) {
			queue(t, h.Socket(), 0)
			c, err := net.Dial("unix", h.Socket())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, "", 200 * time.Millisecond, 200 * time.Millisecond},
		{"wedged", "permits", func(t *testing.T) { wiretest.Listen(t, h.Socket(), hang) }, "acct_mgmt", patience["acct_mgmt"], patience["acct_mgmt"]},
		{"wedged", "hasty", func(t *testing.T) { wiretest.Listen(t, h.Socket(), hang) }, "", patience["acct_mgmt"] / 25, patience["open_session"] / 50},
		{"dripping", "hasty", func(t *testing.T) { wiretest.Listen(t, h.Socket(), drip) }, "", 0, patience["open_session"] / 50},
	} {
		for op, want := range map[string]string{"acct_mgmt": unavailable, "open_session": sessionErr} {
			if c.op != "" && op != c.op {
				continue
			}
			t.Run(c.name+" "+c.service+" "+op, func(t *testing.T) {
				c.set(t)
				start := time.Now()
				if diff := cmp.Diff(down+want, h.pam(t, c.service, "alice@physics", op)); diff != "" {
					t.Error(diff)
				}
				if d := time.Since(start); d < c.least || d > c.most+slack {
					t.Errorf("it took %v", d)
				}
				// Those who are not the grid's do not notice.
				start = time.Now()
				if got := h.pam(t, c.service, "root", op); strings.Contains(got, "exit") {
					t.Errorf("root: %s", got)
				}
				if d := time.Since(start); d > slack {
					t.Errorf("root waits for %v", d)
				}
			})
		}
	}
}

// hasty adds the service "hasty", whose module is the same but for its
// patience: a twenty-fifth of it for an account, a fiftieth for a session and a password.
func hasty(t *testing.T, h host) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"pam_xos", "session/shim"} {
		if err := os.CopyFS(filepath.Join(dir, d), os.DirFS(filepath.Join("..", d))); err != nil {
			t.Fatal(err)
		}
	}
	header := filepath.Join(dir, "session/shim/xos_wire.h")
	b, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for old, hasty := range map[string]string{"XOS_ACCOUNT_MS 10000\n": "XOS_ACCOUNT_MS 400\n", "XOS_OPEN_MS 20000\n": "XOS_OPEN_MS 400\n", "XOS_AUTH_MS 27000\n": "XOS_AUTH_MS 540\n"} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("%q is not in the header", old)
		}
		text = strings.Replace(text, old, hasty, 1)
	}
	wiretest.Write(t, header, text)
	h.Build(t, filepath.Join(dir, "pam_xos/build.sh"), "hasty.so")
	h.PAM(t, "hasty", strings.ReplaceAll(stack("", "pam_permit.so"), "pam_xos.so", "hasty.so"))
}
