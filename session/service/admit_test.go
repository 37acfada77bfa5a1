package service_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func TestRootAdmit(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	pair := s.ca.Delegated("alice@physics", "node1", credtest.Groups("higgs"))
	id, err := credential.FromX509(pair.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	grant := session.Credential{Certificate: pair, Identity: id}
	m, release, err := s.Admit(ctx, id, grant)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Groups) != 2 || m.UID < session.FirstID || m.Home != filepath.Join(s.dir, "home/physics/alice") {
		t.Errorf("mapping %+v", m)
	}
	if !s.mounts.has("home-physics-alice") {
		t.Error("her home is not mounted")
	}
	if c, err := s.Credential(ctx, alice); err != nil || c.Identity.Serial != id.Serial {
		t.Errorf("credential %+v, %v", c.Identity, err)
	}
	// A session and a job share the home: it stays until both have ended.
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	release()
	release()
	time.Sleep(300 * time.Millisecond) // longer than Linger
	if !s.mounts.has("home-physics-alice") {
		t.Error("the home went with the job, under a session")
	}
	kill(p)
	s.eventually("the home is unmounted", func() bool { return !s.mounts.has("home-physics-alice") })

	for name, change := range map[string]func(*session.Credential){
		"another's": func(c *session.Credential) { c.Identity.User = "bob" },
		"elsewhere": func(c *session.Credential) { c.Identity.Node = "node2" },
	} {
		g := grant
		change(&g)
		if _, _, err := s.Admit(ctx, id, g); !xos.Is(err, xos.Permission) {
			t.Errorf("a grant %s: %v", name, err)
		}
	}
	s.ca.Revoke(vom.Revocation{User: "alice", Before: time.Now(), Reason: "gone"})
	if _, _, err := s.Admit(ctx, id, grant); !xos.Is(err, xos.Permission) {
		t.Errorf("a revoked one: %v", err)
	}
}

// TestRootLoginAfterJob: a job's credential is younger than the certificate of
// a login, which still serves after both have ended.
func TestRootLoginAfterJob(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	now := time.Now().Truncate(time.Second)
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Issued(now.Add(-time.Minute), time.Hour))
	login, reply, err := s.open(alice, cert)
	if err != nil || reply.Message != "" {
		t.Fatalf("%q, %v", reply.Message, err)
	}
	pair := s.ca.Delegated("alice@physics", "node1", credtest.Issued(now, 59*time.Minute))
	id, err := credential.FromX509(pair.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	_, release, err := s.Admit(ctx, id, session.Credential{Certificate: pair, Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	kill(login)
	release()
	s.eventually("all is put away", func() bool { return !s.mounts.has("home-physics-alice") })
	if _, reply, err := s.open(alice, cert); err != nil || reply.Message != "" {
		t.Errorf("the next login: %q, %v", reply.Message, err)
	}
	if !s.mounts.has("home-physics-alice") {
		t.Error("it has no home")
	}
}

// TestRootExplainGone explains to root why somebody is refused who has no session
// any more: what was revoked is not forgotten with her last process.
func TestRootExplainGone(t *testing.T) {
	s := newStage(t)
	ask := func() *xosv1.ExplainResponse {
		t.Helper()
		ex, err := s.ExplainHere(as(0), connect.NewRequest(&xosv1.ExplainHereRequest{Subject: "alice@physics"}))
		if err != nil {
			t.Fatal(err)
		}
		return ex.Msg
	}
	if ex := ask(); !ex.Allowed {
		t.Errorf("before: %v", ex)
	}
	s.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Reason: "removed from physics by root"})
	s.Changed(s.ca.Bundle())
	if ex := ask(); ex.Allowed || !strings.Contains(ex.Lines[0], "removed from physics by root") {
		t.Errorf("after: %v", ex)
	}
}
