package process

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/test/need"
)

// TestRootRemote: a process's connection to another host is told from its other
// sockets, and one without a connection has none.
func TestRootRemote(t *testing.T) {
	need.Root(t)
	for _, at := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
		if err != nil {
			t.Logf("%s is not there: %v", at, err)
			continue
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		var files []*os.File
		for _, with := range []interface{ File() (*os.File, error) }{l.(*net.TCPListener), served.(*net.TCPConn)} {
			f, err := with.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		for _, tt := range []struct {
			open []*os.File
			has  bool
		}{{files, true}, {files[:1], false}, {nil, false}} {
			cmd := exec.Command("sleep", "60")
			cmd.ExtraFiles = tt.open
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			id, err := Of(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			got, err := id.Remote()
			if tt.has && (err != nil || got.String() != at) || !tt.has && !xos.Is(err, xos.NotFound) {
				t.Errorf("%s with %d sockets: %v, %v", at, len(tt.open), got, err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if _, err := id.Remote(); !xos.Is(err, xos.NotFound) {
				t.Errorf("of one that is gone: %v", err)
			}
		}
	}
}
