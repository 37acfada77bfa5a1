package pamxos_test

import (
	"testing"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// TestRootDaemons: daemons that let a user in again and again, alone or in
// threads, with little memory or no standard descriptors: nobody is refused,
// and neither memory nor descriptors are left.
func TestRootDaemons(t *testing.T) {
	for _, c := range []string{"prlimit", "valgrind"} {
		need.Command(t, c)
	}
	h := newHost(t)
	s := &wiretest.Service{
		Account: func(wire.Peer, wire.PAMRequest) (string, error) { return "welcome", nil },
		Open: func(wire.Peer, wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
			return wire.PAMOpenReply{Session: "s1", Env: []string{"XOS_SESSION=s1"}, Message: "hello"}, nil
		},
	}
	s.Serve(t, h.Socket())
	h.Compile(t, "testdata/host.c", "host", "-lpam", "-pthread")
	for _, args := range [][]string{
		{"/run/lib/host", "alice@physics", "1000", "0"},
		{"/run/lib/host", "alice@physics", "10", "64"},
		{"prlimit", "--as=104857600", "/run/lib/host", "alice@physics", "20", "0"},
		{"valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite",
			"/run/lib/host", "alice@physics", "5", "0"},
	} {
		if out, err := h.Command(args...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
