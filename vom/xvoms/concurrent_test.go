package xvoms_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

// Two cores on one store, and four administrators: each thing happens once.
func TestEachThingHappensOnce(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	second2, err := xvoms.New(ctx, xvoms.Config{Now: f.now}, f.db, f, vops.Check)
	if err != nil {
		t.Fatal(err)
	}
	cores := []*xvoms.Records{f.Records, second2}
	alice, token := f.member("alice@physics")
	f.member("bob@physics")
	f.ok(f.CreateVO(ctx, "empty"))
	must[xvoms.Token](t)(f.CreateUser(ctx, "eve", "", ""))
	join, secret, err := f.CreateJoinToken(ctx, 0, 1)
	f.ok(err)
	for _, tt := range []struct {
		name string
		do   func(r *xvoms.Records, i int) error
		lost xos.Kind // what the losers hear
	}{
		{"make a VO", func(r *xvoms.Records, _ int) error { return r.CreateVO(ctx, "biology") }, xos.Exists},
		{"make a user", func(r *xvoms.Records, _ int) error { return second(r.CreateUser(ctx, "dave", "", "")) }, xos.Exists},
		{"use a token", func(r *xvoms.Records, _ int) error { return second(r.Login(ctx, alice, vom.Proof{Token: token})) }, xos.Permission},
		{"use a join token", func(r *xvoms.Records, i int) error {
			return second(r.Join(ctx, join, secret.Secret, vom.MachineClaim{Node: xos.NodeID(fmt.Sprint("node", i)), Service: vom.ServiceNode}, ""))
		}, xos.Permission},
		{"remove a member", func(r *xvoms.Records, _ int) error { return r.RemoveMember(ctx, account("bob@physics"), "", "by root") }, xos.NotFound},
		{"delete a user", func(r *xvoms.Records, _ int) error { return r.DeleteUser(ctx, "eve", "by root") }, xos.NotFound},
		{"delete a VO", func(r *xvoms.Records, _ int) error { return r.DeleteVO(ctx, "empty", "by root") }, xos.NotFound},
	} {
		var mu sync.Mutex
		var wg sync.WaitGroup
		won := 0
		for i := range 8 {
			wg.Go(func() {
				err := tt.do(cores[i%2], i)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !xos.Is(err, tt.lost) && !xos.Is(err, xos.Conflict) {
					t.Errorf("%s: %v", tt.name, err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%s: %d won", tt.name, won)
		}
	}
}

// A certificate issued while a membership ends is either refused at once or
// revoked: none slips through, whichever way the race goes.
func TestNoCertificateSlipsThrough(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, _ := f.member("alice@physics")
	for range 20 {
		must[xos.VolumeID](t)(f.AddMember(ctx, alice, nil, nil, "by root"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var issued []vom.Identity
		for range 4 {
			wg.Go(func() {
				id, err := f.Renew(ctx, vom.Identity{Attributes: xos.Attributes{Account: alice}})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					issued = append(issued, id)
				} else if !xos.Is(err, xos.Permission) && !xos.Is(err, xos.Conflict) {
					t.Errorf("renew: %v", err)
				}
			})
		}
		wg.Go(func() { f.ok(f.RemoveMember(ctx, alice, "", "by root")) })
		wg.Wait()
		for _, id := range issued {
			if !f.revoked(id) {
				t.Fatalf("issued at %v, but not revoked by %v", id.Issued, f.Bundle().Revocations)
			}
		}
		f.pass(time.Second)
	}
}

// Epochs only grow, each is told, and whoever reads the bundle meanwhile sees
// a whole one.
func TestBundleWhileItChanges(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var last uint64
			for {
				select {
				case <-done:
					return
				default:
				}
				b := f.Bundle()
				if b.Epoch < last {
					t.Errorf("epoch %d after %d", b.Epoch, last)
				}
				last = b.Epoch
				if err := f.Refresh(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := range 10 {
				for { // Conflict says: try again
					err := f.CreateVO(ctx, xos.VOName(fmt.Sprintf("vo%d-%d", w, i)))
					if err == nil {
						break
					}
					if !xos.Is(err, xos.Conflict) {
						t.Error(err)
						break
					}
				}
			}
		})
	}
	writers.Wait()
	close(done)
	wg.Wait()
	f.ok(f.Refresh(ctx))
	if b := f.Bundle(); len(b.VOs) != 30 || b.Epoch != 31 {
		t.Errorf("%d VOs at epoch %d", len(b.VOs), b.Epoch)
	}
	select {
	case told := <-f.Changed():
		if told != 31 {
			t.Errorf("told of epoch %d", told)
		}
	default:
		t.Error("nobody was told")
	}
}
