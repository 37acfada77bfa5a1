package service_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/session/wire"
)

// TestRootSubIDs: who logs in gets a range of ids for containers, which root and
// her VO are told of; and it ends and is searched for with her uid.
func TestRootSubIDs(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	peer := func(account string) wire.Peer {
		t.Helper()
		c, _ := s.ca.SSHUser(account)
		a, _ := xos.ParseAccount(account)
		if _, _, err := s.open(a, c); err != nil {
			t.Fatal(err)
		}
		e, _ := s.accounts.User(a)
		return wire.Peer{UID: e.ID}
	}
	peer("bob@physics")
	if _, _, err := s.SubIDs(ctx, root, xos.Account{User: "bob", VO: "physics"}); !xos.Is(err, xos.NotFound) {
		t.Errorf("without a pool: %v", err)
	}
	s.kill()
	s.subids = account.Pool{First: 2013265920, Last: 2147418111}
	s.quarantine = 200 * time.Millisecond
	var searched atomic.Uint32
	s.search = func(ids []residue.Subject) residue.Report {
		searched.Store(ids[0].Sub)
		return outcome(ids, 1)
	}
	s.start()

	if _, _, err := s.open(alice, s.certificate()); err != nil {
		t.Fatal(err)
	}
	e, _ := s.accounts.User(alice)
	bob, carol := peer("bob@physics"), peer("carol@chemistry")
	for _, c := range []struct {
		who  string
		peer wire.Peer
		ok   bool
	}{
		{"root", root, true}, {"she", wire.Peer{UID: e.ID}, true}, {"bob", bob, true},
		{"another VO's", carol, false}, {"a local user", wire.Peer{UID: 1000}, false}, {"what runs in her container", wire.Peer{UID: e.Sub + 1}, false},
	} {
		first, count, err := s.SubIDs(ctx, c.peer, alice)
		if c.ok != (err == nil) || !c.ok && !xos.Is(err, xos.NotFound) || c.ok && (first != e.Sub || first == 0 || count != account.SubIDs) {
			t.Errorf("%s: %d, %d, %v", c.who, first, count, err)
		}
		uid, err := s.SubIDOwner(ctx, c.peer, e.Sub+count/2)
		if c.ok != (err == nil) || c.ok && uid != e.ID {
			t.Errorf("%s: owner %d, %v", c.who, uid, err)
		}
	}
	shown := func(subject string, served bool) {
		t.Helper()
		resp, err := s.ShowUID(as(0), connect.NewRequest(&xosv1.ShowUIDRequest{Subject: subject}))
		if err != nil {
			t.Errorf("%s: %v", subject, err)
			return
		}
		if u := resp.Msg.Uid; u.Uid != e.ID || u.SubidFirst != e.Sub || u.SubidCount != account.SubIDs || u.SubidsServed != served {
			t.Errorf("%s is shown as %v", subject, u)
		}
	}
	for _, subject := range []string{"alice@physics", decimal(e.ID), decimal(e.Sub), decimal(e.Sub + account.SubIDs - 1)} {
		shown(subject, true)
	}
	for _, subject := range []string{"0", decimal(e.Sub - 1), decimal(e.Sub + account.SubIDs)} {
		if resp, err := s.ShowUID(as(0), connect.NewRequest(&xosv1.ShowUIDRequest{Subject: subject})); err == nil && resp.Msg.Uid.Uid == e.ID {
			t.Errorf("%s is shown as hers", subject)
		}
	}
	if _, _, err := s.SubIDs(ctx, root, xos.Account{User: "dora", VO: "physics"}); !xos.Is(err, xos.NotFound) {
		t.Errorf("who was never here: %v", err)
	}

	contained := exec.Command("sleep", "60")
	contained.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: e.Sub + 7, Gid: e.Sub + 7}}
	if err := contained.Start(); err != nil {
		t.Fatal(err)
	}
	defer contained.Process.Kill()
	if s.leave() != e.ID {
		t.Error("she got another uid")
	}
	if err := contained.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what ran in her container: %v", err)
	}
	s.eventually("quarantine", func() bool { return s.state() == account.Quarantined })
	if _, _, err := s.SubIDs(ctx, root, alice); !xos.Is(err, xos.NotFound) {
		t.Errorf("in quarantine: %v", err)
	}
	shown("alice@physics", false)
	s.eventually("a sweep", func() bool { return len(s.verdicts()) > 0 })
	if v := s.verdicts()[0]; searched.Load() != e.Sub || v.Detail["subids"] != decimal(e.Sub) {
		t.Errorf("searched for %d, want %d: %+v", searched.Load(), e.Sub, v)
	}
}

// TestRootSubIDsExhausted: a login that can have no range is no less a login.
func TestRootSubIDsExhausted(t *testing.T) {
	s := newStage(t)
	s.kill()
	s.subids = account.Pool{First: 2013265920, Last: 2013265920 + account.SubIDs - 1}
	if err := os.WriteFile(filepath.Join(s.dir, "etc", "subuid"), []byte("local:2013265930:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start()
	if _, _, err := s.open(alice, s.certificate()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.SubIDs(context.Background(), root, alice); !xos.Is(err, xos.NotFound) {
		t.Errorf("she has what is a local user's: %v", err)
	}
}
