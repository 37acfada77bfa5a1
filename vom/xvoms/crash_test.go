package xvoms_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

// brittle is a store whose process dies at its n-th Update: before the commit,
// or after it but before anybody hears of it. Nothing works after that.
type brittle struct {
	kv.Store
	left  atomic.Int64
	after bool
}

var errDied = xos.Errorf(xos.Unavailable, "the process died")

func (b *brittle) Update(ctx context.Context, f func(kv.Txn) error) error {
	switch left := b.left.Add(-1); {
	case left < 0:
		return errDied
	case left > 0:
		return b.Store.Update(ctx, f)
	}
	if b.after {
		if err := b.Store.Update(ctx, f); err != nil {
			return err
		}
	}
	return errDied
}

func (b *brittle) View(ctx context.Context, f func(kv.Txn) error) error {
	if b.left.Load() <= 0 {
		return errDied
	}
	return b.Store.View(ctx, f)
}

// world is all that the records say, and who may still log in.
func world(t *testing.T, db kv.Store) map[string]string {
	t.Helper()
	w := map[string]string{}
	err := db.View(t.Context(), func(tx kv.Txn) error {
		return tx.Range([]byte("vom/"), kv.PrefixEnd([]byte("vom/")), func(k, v []byte) (bool, error) {
			w[string(k)] = string(v)
			return true, nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Whatever is done, and wherever the core dies in it, the records on disk are
// afterwards those of before or those of after; and doing it again gets there.
func TestDyingInTheMiddle(t *testing.T) {
	ctx := t.Context()
	alice := account("alice@physics")
	var token string
	for _, tt := range []struct {
		name string
		do   func(*xvoms.Records) error
		// done is what a second try may hear if the first was completed.
		done xos.Kind
	}{
		{"open", func(r *xvoms.Records) error { return nil }, 0},
		{"make a VO", func(r *xvoms.Records) error { return r.CreateVO(ctx, "biology") }, xos.Exists},
		{"delete a VO", func(r *xvoms.Records) error { return r.DeleteVO(ctx, "empty", "by root") }, xos.NotFound},
		{"set a policy", func(r *xvoms.Records) error {
			return r.SetPolicy(ctx, "physics", "forbid (principal, action, resource);")
		}, 0},
		{"make a user", func(r *xvoms.Records) error { return second(r.CreateUser(ctx, "dave", "", "")) }, xos.Exists},
		{"add a member", func(r *xvoms.Records) error {
			return second(r.AddMember(ctx, account("bob@physics"), []xos.GroupName{"higgs"}, nil, "by root"))
		}, 0},
		{"take her role", func(r *xvoms.Records) error { return second(r.AddMember(ctx, alice, nil, nil, "by root")) }, 0},
		{"remove her", func(r *xvoms.Records) error { return r.RemoveMember(ctx, alice, "", "by root") }, xos.NotFound},
		{"delete her", func(r *xvoms.Records) error { return r.DeleteUser(ctx, "alice", "by root") }, xos.NotFound},
		{"log in", func(r *xvoms.Records) error { return second(r.Login(ctx, alice, vom.Proof{Token: token})) }, xos.Permission},
		{"revoke", func(r *xvoms.Records) error { return r.Revoke(ctx, "7", time.Unix(1, 0), "lost") }, 0},
		{"remove a machine", func(r *xvoms.Records) error { return r.RemoveMachine(ctx, "node1", "", "by root") }, xos.NotFound},
	} {
		for n := int64(1); n <= 3; n++ {
			for _, after := range []bool{false, true} {
				name := fmt.Sprintf("%s, at update %d, after the commit %v", tt.name, n, after)
				f := start(t)
				db := f.db
				_, token = f.member("alice@physics", "analyst")
				must[xvoms.Token](t)(f.CreateUser(ctx, "bob", "", ""))
				f.ok(f.CreateVO(ctx, "empty"))
				id, secret, err := f.CreateJoinToken(ctx, 0, 1)
				f.ok(err)
				must[vom.MachineGrant](t)(f.Join(ctx, id, secret.Secret, vom.MachineClaim{Node: "node1", Service: vom.ServiceNode}, ""))
				before := world(t, db)

				b := &brittle{Store: db, after: after}
				b.left.Store(n)
				r, err := xvoms.New(ctx, xvoms.Config{Now: f.now}, b, f, vops.Check)
				if err == nil {
					err = tt.do(r)
				}
				died := xos.Is(err, xos.Unavailable)
				if err != nil && !died {
					t.Fatalf("%s: %v", name, err)
				}
				if now := world(t, db); !after && died && n <= 2 && cmp.Diff(before, now) != "" {
					t.Errorf("%s: half done: %s", name, cmp.Diff(before, now))
				}
				f.open(xvoms.Config{})
				if err := tt.do(f.Records); err != nil && (tt.done == 0 || !xos.Is(err, tt.done)) {
					t.Errorf("%s, again: %v", name, err)
				}
				for _, wrong := range inconsistent(world(t, db)) {
					t.Errorf("%s: %s", name, wrong)
				}
			}
		}
	}
}

// inconsistent tells what records point at something that is not there.
func inconsistent(w map[string]string) (wrong []string) {
	need := func(by string, parts ...string) {
		if _, ok := w["vom/"+strings.Join(parts, "/")]; !ok {
			wrong = append(wrong, by+" stands without "+strings.Join(parts, "/"))
		}
	}
	for key := range w {
		switch p := strings.Split(key, "/"); p[1] {
		case "member":
			need(key, "vo", p[2])
			need(key, "user", p[3])
			need(key, "memberof", p[3], p[2])
		case "memberof":
			need(key, "member", p[3], p[2])
		case "token":
			need(key, "user", p[2])
		}
	}
	return wrong
}
