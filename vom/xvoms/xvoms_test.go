package xvoms_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/vops"
	"github.com/xtreemos/xos/vom/xvoms"
)

// fixture is records with a clock of the test's.
type fixture struct {
	*xvoms.Records
	t  *testing.T
	db kv.Store

	mu   sync.Mutex
	time time.Time
	made map[xos.VolumeID]xos.Account
	fail error // of CreateVolume
}

func (f *fixture) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.time
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.time = f.time.Add(d)
}

// CreateVolume is a directory's: idempotent for one owner.
func (f *fixture) CreateVolume(_ context.Context, name xos.VolumeID, owner xos.Account) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if had, ok := f.made[name]; ok && had != owner {
		return xos.Errorf(xos.Exists, "volume %s exists", name)
	}
	if f.fail != nil {
		return f.fail
	}
	f.made[name] = owner
	return nil
}

func start(t *testing.T) *fixture {
	t.Helper()
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fixture{t: t, db: db, time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), made: map[xos.VolumeID]xos.Account{}}
	f.open(xvoms.Config{})
	return f
}

// open opens the records (again), as another core would.
func (f *fixture) open(cfg xvoms.Config) {
	f.t.Helper()
	cfg.Now = f.now
	cfg.Isolation = func(text string) error { _, err := isolation.Parse([]byte(text)); return err }
	r, err := xvoms.New(f.t.Context(), cfg, f.db, f, vops.Check)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Records = r
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func account(s string) xos.Account {
	user, vo, _ := strings.Cut(s, "@")
	return xos.Account{User: xos.UserID(user), VO: xos.VOName(vo)}
}

// member makes user, VO and membership, and gives the enrolment token.
func (f *fixture) member(name string, roles ...xos.RoleName) (xos.Account, string) {
	f.t.Helper()
	a := account(name)
	if err := f.CreateVO(f.t.Context(), a.VO); err != nil && !xos.Is(err, xos.Exists) {
		f.t.Fatal(err)
	}
	token, err := f.CreateUser(f.t.Context(), a.User, "", "")
	if err != nil && !xos.Is(err, xos.Exists) {
		f.t.Fatal(err)
	}
	must[xos.VolumeID](f.t)(f.AddMember(f.t.Context(), a, nil, roles, "by root"))
	return a, token.Secret
}

func (f *fixture) revoked(id vom.Identity) bool {
	_, revoked := credential.Revoked(f.Bundle().Revocations, id)
	return revoked
}

// badNames could be mistaken in a passwd line, a path, a shell or a log.
var badNames = []string{"", "root", "nobody", "xos", "a:b", "a\nb", "a\x00", "a/b", "../a", ".", "a.", "a-", "-a", "1a", "Alice", "al ice",
	"älice", "аlice", "a\u200bb", "a@b", "a,b", "$a", "a\x1b[2J", strings.Repeat("a", 33), strings.Repeat("a", 200), "a\xff"}

func TestBadNamesAreRefused(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	f.member("alice@physics")
	epoch := f.Bundle().Epoch
	for _, n := range badNames {
		reserved := xos.ReservedName(n)
		for what, err := range map[string]error{
			"VO":   f.CreateVO(ctx, xos.VOName(n)),
			"user": second(f.CreateUser(ctx, xos.UserID(n), "", "")),
			"node": third(f.Join(ctx, "x", "y", vom.MachineClaim{Node: xos.NodeID(n), Service: vom.ServiceNode}, "")),
			"core": third(f.CertifyCore(ctx, vom.MachineClaim{Node: xos.NodeID(n), Service: vom.ServiceCore})),
		} {
			if !xos.Is(err, xos.Invalid) {
				t.Errorf("%s %q: %v", what, n, err)
			} else if strings.ContainsAny(err.Error(), "\n\x00\x1b\xff") || len(err.Error()) > 400 {
				t.Errorf("%s %q: the error is %q", what, n, err)
			}
		}
		a := xos.Account{User: xos.UserID(n), VO: "physics"}
		for what, err := range map[string]error{
			"add a user":        second(f.AddMember(ctx, a, nil, nil, "")),
			"add to a VO":       second(f.AddMember(ctx, xos.Account{User: "alice", VO: xos.VOName(n)}, nil, nil, "")),
			"remove a user":     f.RemoveMember(ctx, a, "", ""),
			"remove from a VO":  f.RemoveMember(ctx, xos.Account{User: "alice", VO: xos.VOName(n)}, "", ""),
			"delete a user":     f.DeleteUser(ctx, xos.UserID(n), ""),
			"delete a VO":       f.DeleteVO(ctx, xos.VOName(n), ""),
			"list a VO":         second(f.ListMembers(ctx, xos.VOName(n))),
			"set a password":    f.SetPassword(ctx, xos.UserID(n), ""),
			"give a token":      second(f.CreateToken(ctx, xos.UserID(n), 0)),
			"set a VO's policy": f.SetPolicy(ctx, xos.VOName(n), ""),
			"remove a machine":  f.RemoveMachine(ctx, xos.NodeID(n), "", ""),
		} {
			if !xos.Is(err, xos.NotFound) {
				t.Errorf("%s %q: %v", what, n, err)
			}
		}
		if reserved {
			continue // a group's name stands behind its VO's: "physics:root"
		}
		for what, err := range map[string]error{
			"group": second(f.AddMember(ctx, account("alice@physics"), []xos.GroupName{xos.GroupName(n)}, nil, "")),
			"role":  second(f.AddMember(ctx, account("alice@physics"), nil, []xos.RoleName{xos.RoleName(n)}, "")),
		} {
			if !xos.Is(err, xos.Invalid) {
				t.Errorf("%s %q: %v", what, n, err)
			}
		}
	}
	if f.Bundle().Epoch != epoch {
		t.Errorf("the epoch went from %d to %d for nothing", epoch, f.Bundle().Epoch)
	}
}

func second[T any](_ T, err error) error { return err }
func third[T any](_ T, err error) error  { return err }

func TestBounds(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	a, _ := f.member("alice@physics")
	var groups []xos.GroupName
	for i := range 65 {
		groups = append(groups, xos.GroupName(fmt.Sprint("g", i)))
	}
	join := func(ttl time.Duration, uses int64) error {
		_, _, err := f.CreateJoinToken(ctx, ttl, uses)
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		want xos.Kind
	}{
		{"65 groups", second(f.AddMember(ctx, a, groups, nil, "")), xos.TooLarge},
		{"64 groups", second(f.AddMember(ctx, a, groups[:64], nil, "")), 0},
		{"65 roles", second(f.AddMember(ctx, a, nil, make65(), "")), xos.TooLarge},
		{"the same group 65 times", second(f.AddMember(ctx, a, slicesRepeat(groups[:1], 65), nil, "")), 0},
		{"full name with a colon", second(f.CreateUser(ctx, "bob", "Bob:0:0", "")), xos.Invalid},
		{"full name with a newline", second(f.CreateUser(ctx, "bob", "Bob\nroot", "")), xos.Invalid},
		{"full name with a comma", second(f.CreateUser(ctx, "bob", "Bob, Dr", "")), xos.Invalid},
		{"full name of 129 bytes", second(f.CreateUser(ctx, "bob", strings.Repeat("b", 129), "")), xos.Invalid},
		{"full name that is no UTF-8", second(f.CreateUser(ctx, "bob", "B\xff", "")), xos.Invalid},
		{"full name of anywhere", second(f.CreateUser(ctx, "bob", "Борис Łukasiewicz", "")), 0},
		{"password of 7", f.SetPassword(ctx, "bob", "1234567"), xos.Invalid},
		{"password of 257", f.SetPassword(ctx, "bob", strings.Repeat("x", 257)), xos.Invalid},
		{"policy of isolation too large", f.SetIsolation(ctx, "physics", strings.Repeat(" ", 64<<10+1), ""), xos.TooLarge},
		{"policy of isolation of nobody's", f.SetIsolation(ctx, "nobody", "", ""), xos.NotFound},
		{"policy too large", f.SetPolicy(ctx, "physics", strings.Repeat(" ", 64<<10+1)), xos.TooLarge},
		{"token for ever", second(f.CreateToken(ctx, "bob", 91*24*time.Hour)), xos.Invalid},
		{"token of the past", second(f.CreateToken(ctx, "bob", -1)), xos.Invalid},
		{"join token for ever", join(31*24*time.Hour, 1), xos.Invalid},
		{"join token of the past", join(-1, 1), xos.Invalid},
		{"join token for a crowd", join(0, 10001), xos.Invalid},
		{"join token for fewer than none", join(0, -1), xos.Invalid},
		{"reason of two lines", f.RemoveMember(ctx, a, "left\nroot", "by root"), xos.Invalid},
		{"reason too long", f.RemoveMember(ctx, a, strings.Repeat("x", 201), "by root"), xos.Invalid},
		{"machine's reason of two lines", f.RemoveMachine(ctx, "node1", "gone\nroot", "by root"), xos.Invalid},
		{"serial with a slash", explain(f, "", "1/2"), xos.Invalid},
		{"serial of 50 digits", explain(f, "", strings.Repeat("1", 50)), xos.Invalid},
		{"account with a newline", explain(f, "a\n@physics", ""), xos.Invalid},
	} {
		if tt.want == 0 && tt.err != nil || tt.want != 0 && !xos.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
}

func explain(f *fixture, account, serial string) error {
	_, _, err := f.Explain(f.t.Context(), account, serial)
	return err
}

func make65() (roles []xos.RoleName) {
	for i := range 65 {
		roles = append(roles, xos.RoleName(fmt.Sprint("r", i)))
	}
	return roles
}

func slicesRepeat[T any](s []T, n int) (out []T) {
	for range n {
		out = append(out, s...)
	}
	return out
}
