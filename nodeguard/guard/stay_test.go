package guard_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/guard"
)

// TestRootStay: what sessions use is counted from Arrive on, apart from jobs, and
// by a successor too.
func TestRootStay(t *testing.T) {
	s := metered(t)
	count := func(g *guard.Guard) uint64 {
		t.Helper()
		st, err := g.Stay(t.Context(), ofAlice, alice)
		if err != nil {
			t.Fatal(err)
		}
		// There is one where systemd was asked to bound her sessions.
		_, err = os.Stat(filepath.Join(s.cfg.CgroupRoot, "user.slice", fmt.Sprintf("user-%d.slice", alice)))
		if (st.Cgroup != 0) != (err == nil) {
			t.Errorf("the cgroup of her sessions is %d; it is there: %v", st.Cgroup, err)
		}
		return st.Execs
	}
	s.run(t, alice, "nothing", "-", "-")
	s.run(t, alice, "nothing", "-", "-")
	s.begun(t, ofAlice).run(t, alice, "nothing", "-", "-")
	if n := count(s.Guard); n != 2 {
		t.Errorf("%d programs, want 2", n)
	}
	if err := s.Arrive(ofAlice, alice); err != nil {
		t.Fatal(err)
	}
	s.run(t, alice, "nothing", "-", "-")
	s.Guard.Close()
	next, err := guard.New(s.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if n := count(next); n != 1 {
		t.Errorf("%d programs since she arrived, want 1", n)
	}
	if _, err := next.Stay(t.Context(), xos.Account{User: "nemo", VO: "physics"}, alice+1000); !xos.Is(err, xos.NotFound) {
		t.Errorf("of somebody who never came: %v", err)
	}
}
