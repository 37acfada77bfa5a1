package xvoms_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/xvoms"
)

// TestWhereAPolicyIsInForce: a node is said to have a policy in force only if it
// said so itself, lately, of this text.
func TestWhereAPolicyIsInForce(t *testing.T) {
	f := start(t)
	f.member("eve@biology")
	ctx := t.Context()
	all := []xos.VOName{"*"}
	where := func() (said []string) {
		t.Helper()
		_, nodes, err := f.IsolationInForce(ctx, "biology")
		f.ok(err)
		for _, n := range nodes {
			said = append(said, strings.TrimSpace(fmt.Sprint(n.Node, " ", n.InForce, " ", n.Why)))
		}
		return said
	}
	say := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, where()); d != "" {
			t.Error(d)
		}
	}
	say()
	f.ok(f.SetIsolation(ctx, "biology", "forbid = []", ""))
	f.ok(f.Refresh(ctx))
	epoch := f.Bundle().Epoch
	f.Heard("n1", xvoms.InForce{Epoch: epoch, VOs: all})
	f.Heard("n2", xvoms.InForce{Epoch: epoch - 1, VOs: []xos.VOName{"physics", "biology"}})
	f.Heard("n3", xvoms.InForce{Epoch: epoch, VOs: []xos.VOName{"physics"}})
	f.Heard("n4", xvoms.InForce{Epoch: epoch, VOs: all, Unread: []xos.VOName{"biology"}})
	f.Heard("n5", xvoms.InForce{VOs: all})
	f.Heard("n6", xvoms.InForce{Epoch: epoch + 1, VOs: all})
	f.Heard("n7", xvoms.InForce{Epoch: epoch, VOs: make([]xos.VOName, 20000)})
	say("n1 true", "n2 false an earlier one is in force",
		"n4 false it cannot read this one: the VO shares nothing there and may do least",
		"n5 false no policies are in force there", "n6 false its news are later than the core's")
	// What changes of other things makes it no other text.
	f.ok(f.CreateVO(ctx, "elsewhere"))
	f.pass(2 * time.Minute)
	f.Heard("n1", xvoms.InForce{Epoch: epoch, VOs: all})
	f.Heard("n2", xvoms.InForce{Epoch: epoch + 1, VOs: all})
	say("n1 true", "n2 true", "n4 false not heard of", "n5 false not heard of", "n6 false not heard of")
	f.ok(f.SetIsolation(ctx, "biology", "", ""))
	say("n1 false an earlier one is in force", "n2 false an earlier one is in force", "n4 false not heard of", "n5 false not heard of", "n6 false not heard of")
	f.pass(24*time.Hour + time.Second)
	f.Heard("n1", xvoms.InForce{Epoch: epoch + 2, VOs: all})
	say("n1 true")
	// Of a VO that never had one nodes must have the latest news.
	if _, nodes, err := f.IsolationInForce(ctx, "elsewhere"); err != nil || len(nodes) != 1 || !nodes[0].InForce {
		t.Errorf("%+v, %v", nodes, err)
	}
	f.ok(f.CreateVO(ctx, "another"))
	if _, nodes, err := f.IsolationInForce(ctx, "elsewhere"); err != nil || len(nodes) != 1 || nodes[0].InForce {
		t.Errorf("%+v, %v", nodes, err)
	}
	if _, _, err := f.IsolationInForce(ctx, "nobodys"); !xos.Is(err, xos.NotFound) {
		t.Errorf("%v", err)
	}
}
