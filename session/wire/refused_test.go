package wire_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// TestRootRefused: who was refused a session is dealt with when the client has
// hung up, when it says more, when it keeps silent for too long, when it never
// took the answer, and when the service ends; once, and not before the answer.
func TestRootRefused(t *testing.T) {
	need.Root(t)
	for _, c := range []struct {
		name  string
		after func(c *net.UnixConn, stop func())
		least time.Duration
	}{
		{"it hangs up", func(c *net.UnixConn, _ func()) { c.Close() }, 0},
		{"it says no more", func(c *net.UnixConn, _ func()) { c.CloseWrite() }, 0},
		{"it goes on talking", func(c *net.UnixConn, _ func()) { c.Write([]byte{1, 2, 3}) }, 0},
		{"it keeps silent", func(c *net.UnixConn, _ func()) {}, 1900 * time.Millisecond},
		{"the service ends", func(_ *net.UnixConn, stop func()) { stop() }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			refused := make(chan time.Time, 2)
			s := &wiretest.Service{Open: func(wire.Peer, wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
				return wire.PAMOpenReply{Refused: func() { refused <- time.Now() }}, xos.Errorf(xos.Permission, "no")
			}}
			stop := s.Serve(t, path)
			conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(wiretest.Message(9, 0, wiretest.Fields("alice@physics", "sudo", "", "", ""))); err != nil {
				t.Fatal(err)
			}
			if op, fields, err := wiretest.ReadRequest(conn); err != nil || op != 9 || string(fields) != string(wiretest.Fields("no")) {
				t.Fatalf("the answer is %d %q, %v", op, fields, err)
			}
			answered := time.Now()
			if len(refused) != 0 {
				t.Error("it was dealt with before the answer")
			}
			c.after(conn, stop)
			select {
			case at := <-refused:
				if d := at.Sub(answered); d < c.least {
					t.Errorf("dealt with after %v", d)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("never dealt with")
			}
			stop()
			if len(refused) != 0 {
				t.Error("dealt with twice")
			}
		})
	}
}
