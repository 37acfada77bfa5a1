package xvoms_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/xvoms"
)

const right = "correct horse battery"

func TestTokens(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, hers := f.member("alice@physics")
	bob, _ := f.member("bob@physics")
	if _, err := f.CreateUser(ctx, "eve", "", ""); err != nil {
		t.Fatal(err)
	}
	eves := must[xvoms.Token](t)(f.CreateToken(ctx, "eve", 0)).Secret
	brief := must[xvoms.Token](t)(f.CreateToken(ctx, "alice", time.Minute))
	login := func(a xos.Account, p vom.Proof) error { return second(f.Login(ctx, a, p)) }
	for _, tt := range []struct {
		name string
		a    xos.Account
		p    vom.Proof
		want xos.Kind
	}{
		{"nothing", alice, vom.Proof{}, xos.Invalid},
		{"both", alice, vom.Proof{Token: hers, Password: right}, xos.Invalid},
		{"a new password for an old one", alice, vom.Proof{Password: right, NewPassword: right}, xos.Invalid},
		{"another's token", bob, vom.Proof{Token: hers}, xos.Permission},
		{"part of a token", alice, vom.Proof{Token: hers[:len(hers)-1]}, xos.Permission},
		{"a token in another case", alice, vom.Proof{Token: strings.ToLower(hers)}, xos.Permission},
		{"a token of 4 MiB", alice, vom.Proof{Token: strings.Repeat("A", 4<<20)}, xos.Permission},
		{"a path for a token", alice, vom.Proof{Token: "../bob/" + hers}, xos.Permission},
		{"another VO", account("alice@chemistry"), vom.Proof{Token: hers}, xos.Permission},
		{"a user who never was", account("nobody-here@physics"), vom.Proof{Token: hers}, xos.Permission},
		{"a bad new password", alice, vom.Proof{Token: hers, NewPassword: "short"}, xos.Invalid},
		{"no member", account("eve@physics"), vom.Proof{Token: eves}, xos.Permission},
	} {
		if err := login(tt.a, tt.p); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// None of these spent a token, nor did eve's failure.
	if err := login(alice, vom.Proof{Token: hers}); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if err := login(alice, vom.Proof{Token: hers}); !xos.Is(err, xos.Permission) {
		t.Errorf("twice: %v", err)
	}
	must[xos.VolumeID](t)(f.AddMember(ctx, account("eve@physics"), nil, nil, "by root"))
	if err := login(account("eve@physics"), vom.Proof{Token: eves}); err != nil {
		t.Errorf("eve, a member now: %v", err)
	}
	f.pass(time.Minute)
	other := must[xvoms.Token](t)(f.CreateToken(ctx, "alice", time.Minute)).Secret
	f.pass(time.Second)
	if err := login(alice, vom.Proof{Token: brief.Secret}); !xos.Is(err, xos.Permission) {
		t.Errorf("expired: %v", err)
	}
	if err := login(alice, vom.Proof{Token: brief.Secret, NewPassword: right}); !xos.Is(err, xos.Permission) {
		t.Errorf("expired, with a new password: %v", err)
	}
	f.ok(f.DeleteUser(ctx, "alice", "by root"))
	if err := login(alice, vom.Proof{Token: other}); !xos.Is(err, xos.Permission) {
		t.Errorf("deleted: %v", err)
	}
}

// Whoever has not proved who she is learns nothing: not which users there
// are, nor who is a member, nor why she is none.
func TestStrangersLearnNothing(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, _ := f.member("alice@physics")
	f.member("gone@physics")
	f.ok(f.RemoveMember(ctx, account("gone@physics"), "a secret reason", "by root"))
	f.ok(f.SetPassword(ctx, "alice", right))
	answers := map[string]bool{}
	for _, name := range []string{"alice@physics", "alice@chemistry", "gone@physics", "never@physics", "never@nowhere"} {
		for _, p := range []vom.Proof{{Password: "wrong password"}, {Token: "wrong token"}, {Token: "wrong token", NewPassword: right}} {
			_, err := f.Login(ctx, account(name), p)
			if !xos.Is(err, xos.Permission) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			answers[err.Error()] = true
		}
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); err != nil {
		t.Error(err)
	}
}

// A user who is not there, one without a password and a wrong password cost
// the same.
func TestPasswordTime(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.member("alice@physics")
	f.member("bob@physics")
	f.ok(f.SetPassword(ctx, "alice", right))
	took := func(name string) time.Duration {
		best := time.Hour
		for range 3 {
			start := time.Now()
			if _, err := f.Login(ctx, account(name), vom.Proof{Password: "wrong password"}); !xos.Is(err, xos.Permission) {
				t.Fatalf("%s: %v", name, err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	known := took("alice@physics")
	for _, name := range []string{"never@physics", "bob@physics"} {
		if other := took(name); other < known/4 || other > known*4 {
			t.Errorf("%s took %v, alice %v", name, other, known)
		}
	}
}

// Five guesses are free, at once or one after the other; then each waits.
func TestGuesses(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, _ := f.member("alice@physics")
	f.member("bob@physics")
	f.ok(f.SetPassword(ctx, "alice", right))
	f.ok(f.SetPassword(ctx, "bob", right))
	guess := func(a xos.Account, password string) xos.Kind {
		if _, err := f.Login(ctx, a, vom.Proof{Password: password}); err != nil {
			return xos.KindOf(err)
		}
		return 0
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	kinds := map[xos.Kind]int{}
	for range 12 {
		wg.Go(func() {
			k := guess(alice, "wrong password")
			mu.Lock()
			kinds[k]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if kinds[xos.Permission] != 5 || kinds[xos.Unavailable] != 7 {
		t.Fatalf("12 guesses at once: %v", kinds)
	}
	if k := guess(alice, right); k != xos.Unavailable {
		t.Errorf("the right password at once: %v", k)
	}
	if k := guess(account("bob@physics"), right); k != 0 {
		t.Errorf("bob has to wait for alice: %v", k)
	}
	if k := guess(account("alice@chemistry"), right); k != xos.Unavailable {
		t.Errorf("in another VO she guesses on: %v", k)
	}
	f.pass(time.Second)
	if k := guess(alice, "wrong password"); k != xos.Permission {
		t.Errorf("after a second: %v", k)
	}
	f.pass(time.Second)
	if k := guess(alice, right); k != xos.Unavailable {
		t.Errorf("the wait does not grow: %v", k)
	}
	f.pass(time.Second)
	if k := guess(alice, right); k != 0 {
		t.Errorf("after waiting: %v", k)
	}
	if k := guess(alice, "wrong password"); k != xos.Permission {
		t.Errorf("a new count: %v", k)
	}
	// An administrator helps one who is shut out.
	for range 5 {
		guess(alice, strings.Repeat("x", 300)) // too long to be one: costs nothing, counts
	}
	if k := guess(alice, right); k != xos.Unavailable {
		t.Errorf("shut out: %v", k)
	}
	f.ok(f.SetPassword(ctx, "alice", right+"!"))
	if k := guess(alice, right+"!"); k != 0 {
		t.Errorf("helped: %v", k)
	}
}

// Many right passwords at once are no guesses: all get in, and one that comes
// with them and is wrong counts as one.
func TestManyAtOnce(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, _ := f.member("alice@physics")
	f.ok(f.SetPassword(ctx, "alice", right))
	for range 4 { // one more is free
		if _, err := f.Login(ctx, alice, vom.Proof{Password: "wrong password"}); !xos.Is(err, xos.Permission) {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Who waits gives up when her time is over.
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	for range 12 {
		wg.Go(func() {
			if _, err := f.Login(short, alice, vom.Proof{Password: right}); err != nil && !xos.Is(err, xos.Unavailable) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); err != nil {
		t.Errorf("after those who gave up: %v", err)
	}
}

// A token that sets a password ends the wait of a user who forgot hers.
func TestNewPassword(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, token := f.member("alice@physics")
	for range 6 {
		f.Login(ctx, alice, vom.Proof{Password: strings.Repeat("x", 300)})
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Token: token, NewPassword: right}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); err != nil {
		t.Errorf("with the password just set: %v", err)
	}
	// She changes it herself, who knows the old one; nobody else does.
	const next = "another password"
	for _, c := range []struct {
		name, password, new string
		want                xos.Kind
	}{
		{"by a guess", "wrong password", next, xos.Permission},
		{"to the same", right, right, xos.Invalid},
		{"to a short one", right, "short", xos.Invalid},
		{"to a long one", right, strings.Repeat("x", 300), xos.Invalid},
	} {
		if _, err := f.Login(ctx, alice, vom.Proof{Password: c.password, NewPassword: c.new}); !xos.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); err != nil {
			t.Errorf("%s: the old one serves no more: %v", c.name, err)
		}
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Password: right, NewPassword: next}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Password: right}); !xos.Is(err, xos.Permission) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := f.Login(ctx, alice, vom.Proof{Password: next}); err != nil {
		t.Errorf("the new one: %v", err)
	}
	// Of two who change it at once, one does.
	var wg sync.WaitGroup
	var changed atomic.Int32
	for i := range 2 {
		wg.Go(func() {
			if _, err := f.Login(ctx, alice, vom.Proof{Password: next, NewPassword: next + strconv.Itoa(i)}); err == nil {
				changed.Add(1)
			}
		})
	}
	wg.Wait()
	if changed.Load() != 1 {
		t.Errorf("%d of two changed it", changed.Load())
	}
}

func TestDelegation(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	alice, token := f.member("alice@physics", "analyst", "admin")
	id := must[vom.Identity](t)(f.Login(ctx, alice, vom.Proof{Token: token}))
	as := vom.Origin{Mode: vom.Vouched, Depth: 1, Until: id.NotAfter}
	d := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", as, f.now().Add(time.Minute)))
	if d.Node != "node1" || d.Source != id.Serial || d.NotAfter.After(f.now().Add(time.Minute)) {
		t.Errorf("delegated %+v", d)
	}
	if from := must[vom.Origin](t)(f.Origin(ctx, d)); from != as {
		t.Errorf("on record is %+v, was %+v", from, as)
	}
	// What it comes from at first bounds it, and the machines between do not.
	again := must[vom.Identity](t)(f.Delegate(ctx, d, "node2", as, id.NotAfter.Add(time.Hour)))
	if again.Source != id.Serial || !again.NotAfter.Equal(id.NotAfter) {
		t.Errorf("delegated on %+v", again)
	}
	for name, edit := range map[string]func(*vom.Identity){
		"never issued":          func(v *vom.Identity) { v.Serial = "77" },
		"of no login on record": func(v *vom.Identity) { v.Account.User = "bob" },
	} {
		odd := d
		edit(&odd)
		if _, err := f.Origin(ctx, odd); !xos.Is(err, xos.Permission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Renew(ctx, d); !xos.Is(err, xos.Permission) {
		t.Errorf("renewed by itself: %v", err)
	}
	id.Roles = []xos.RoleName{"analyst", "made-up"} // what the certificate says
	if less := must[vom.Identity](t)(f.Delegate(ctx, id, "node1", as, id.NotAfter)); len(less.Roles) != 1 || less.Roles[0] != "analyst" {
		t.Errorf("more than both certificate and records say: %v", less.Roles)
	}
	f.pass(2 * time.Minute)
	if _, err := f.Delegate(ctx, d, "node1", as, id.NotAfter); !xos.Is(err, xos.Expired) {
		t.Errorf("of one that has expired: %v", err)
	}
	f.ok(f.RemoveMember(ctx, alice, "", "by root"))
	for what, err := range map[string]error{
		"delegate": second(f.Delegate(ctx, id, "node1", as, id.NotAfter)),
		"renew":    second(f.Renew(ctx, id)),
	} {
		var xe *xos.Error
		if !xos.Is(err, xos.Permission) || !errors.As(err, &xe) || !strings.Contains(xe.Msg, "removed from physics") {
			t.Errorf("%s after the removal: %v", what, err)
		}
	}
}
