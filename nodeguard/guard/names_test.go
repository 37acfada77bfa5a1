package guard_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// TestRootNamesWithOneHash: who makes a VO whose name has the hash of another's
// is not taken for it, neither now nor by a successor to whom it comes first.
func TestRootNamesWithOneHash(t *testing.T) {
	s := newStage(t)
	victim := xos.Account{User: "alice", VO: "vo78878"}
	double := xos.Account{User: "carol", VO: "vo716444"} // its FNV-1a is the same
	if err := s.Login(context.Background(), victim, alice); err != nil {
		t.Fatal(err)
	}
	at := s.listen(t, alice, "tcp4", "127.0.0.1:0")
	apart := func(when string) {
		t.Helper()
		if out, err := s.command(t, carol, "connect", "tcp4", at).Output(); err == nil || !strings.Contains(string(out), "not permitted") {
			t.Errorf("%s: carol connects: %s", when, out)
		}
		if out, err := s.command(t, alice, "connect", "tcp4", at).Output(); err != nil {
			t.Errorf("%s: alice does not reach herself: %s", when, out)
		}
	}
	if err := s.Login(context.Background(), double, carol); err != nil {
		t.Fatal(err)
	}
	apart("at once")
	s.Close()
	next, err := guard.New(s.cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.Login(context.Background(), double, carol); err != nil {
		t.Fatal(err)
	}
	apart("after a restart")
	if err := next.Login(context.Background(), victim, bob); err != nil {
		t.Fatal(err)
	}
	if out, err := s.command(t, bob, "connect", "tcp4", at).Output(); err != nil {
		t.Errorf("a member who comes later does not reach her VO: %s", out)
	}
}
