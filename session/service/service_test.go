package service_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func TestRootLogin(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Groups("higgs"))
	before, err := s.GetPwNam(ctx, root, alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Principals(ctx, root, wire.PrincipalsRequest{Account: alice, KeyType: cert.Type(), Key: key(cert)}); err != nil {
		t.Fatal(err)
	}
	// sshd asks for the groups before there is a session.
	early, err := s.InitGroups(ctx, root, alice)
	if err != nil || len(early) != 2 {
		t.Errorf("groups before the session: %v, %v", early, err)
	}
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Message != "" {
		t.Errorf("the login was told %q", reply.Message)
	}
	if !slices.Contains(reply.Env, "XOS_VO=physics") {
		t.Errorf("environment %q", reply.Env)
	}
	after, err := s.GetPwNam(ctx, root, alice)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the answer changed with the session: %s", diff)
	}
	late, err := s.InitGroups(ctx, root, alice)
	if diff := cmp.Diff(early, late); err != nil || diff != "" {
		t.Errorf("groups changed with the session: %s, %v", diff, err)
	}
	if _, err := os.Stat(wire.SnapshotPath(filepath.Join(s.run, "nss"), "physics")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"cert.pem", "key.pem"} {
		info, err := os.Stat(filepath.Join(s.run, "cred", strconv.Itoa(int(after.UID)), name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if !s.mounts.has("home-physics-alice") {
		t.Error("her home is not mounted")
	}
	who, err := s.WhoAmI(as(after.UID), connect.NewRequest(&xosv1.WhoAmIRequest{}))
	if err != nil || who.Msg.Attributes.User != "alice" || who.Msg.Session != string(reply.Session) {
		t.Errorf("who am I: %v, %v", who, err)
	}
	if c, err := s.Credential(ctx, alice); err != nil || c.Identity.Node != "node1" {
		t.Errorf("credential %+v, %v", c.Identity, err)
	}

	// Nobody calls PAMClose when the process is killed.
	kill(p)
	s.eventually("the session ends", func() bool { return s.sessions() == 0 })
	s.eventually("the home is unmounted", func() bool { return !s.mounts.has("home-physics-alice") })
	s.eventually("the credential is gone", func() bool {
		_, err := os.Stat(filepath.Join(s.run, "cred", strconv.Itoa(int(after.UID))))
		return os.IsNotExist(err)
	})
	if _, err := s.Credential(ctx, alice); !xos.Is(err, xos.Permission) {
		t.Errorf("a credential without a session: %v", err)
	}
}

func kill(p wire.Peer) {
	if proc, err := os.FindProcess(p.PID); err == nil {
		proc.Kill()
	}
}

func TestRootRefusals(t *testing.T) {
	s := newStage(t)
	mk := func(account string, opts ...credtest.Option) *ssh.Certificate {
		c, _ := s.ca.SSHUser(account, opts...)
		return c
	}
	foreign, _ := credtest.New(t).SSHUser("alice@physics")
	tampered := mk("alice@physics")
	tampered.Extensions["groups@xtreemos"] = "admins"
	revoked := mk("eve@physics")
	s.ca.Revoke(vom.Revocation{User: "eve", VO: "physics", Before: time.Now(), Reason: "removed from physics by root"})
	for _, tc := range []struct {
		name    string
		account string
		cert    *ssh.Certificate
		kind    xos.Kind
		says    string
	}{
		{"another account", "alice@physics", mk("bob@physics"), xos.Permission, "for bob@physics"},
		{"another VO", "alice@physics", mk("alice@chemistry"), xos.Permission, "alice@chemistry"},
		{"expired", "alice@physics", mk("alice@physics", credtest.Issued(time.Now().Add(-2*time.Hour), time.Hour)), xos.Expired, "expired"},
		{"not yet valid", "alice@physics", mk("alice@physics", credtest.Issued(time.Now().Add(time.Hour), time.Hour)), xos.Permission, "only from"},
		{"foreign authority", "alice@physics", foreign, xos.Permission, "does not know"},
		{"tampered", "alice@physics", tampered, xos.Permission, "does not verify"},
		{"revoked", "eve@physics", revoked, xos.Permission, "removed from physics"},
		{"banned", "mallory@physics", mk("mallory@physics"), xos.Permission, "banned"},
		{"VO not served", "alice@biology", mk("alice@biology"), xos.Permission, "does not serve"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := xos.ParseAccount(tc.account)
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			if tc.name != "VO not served" {
				if _, err := s.GetPwNam(ctx, root, a); err != nil {
					t.Fatal(err)
				}
			} else if _, err := s.GetPwNam(ctx, root, a); !xos.Is(err, xos.NotFound) {
				t.Errorf("a name of a VO that is not served: %v", err)
			}
			_, err = s.Principals(ctx, root, wire.PrincipalsRequest{Account: a, KeyType: tc.cert.Type(), Key: key(tc.cert)})
			if !xos.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("principals: %v", err)
			}
			p := s.login()
			_, err = s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: a, Service: "sshd"}, AuthInfo: authInfo(tc.cert)})
			if !xos.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("open: %v", err)
			}
			s.eventually("the login process is ended", func() bool { return dead(p) })
			if e, ok := s.accounts.User(a); ok {
				t.Errorf("uid %d was given to one who was refused", e.ID)
			}
			ex, err := s.ExplainHere(as(0), connect.NewRequest(&xosv1.ExplainHereRequest{Subject: tc.account}))
			if err != nil || !strings.Contains(strings.Join(ex.Msg.Lines, "\n"), tc.says) {
				t.Errorf("explanation %v, %v", ex, err)
			}
		})
	}
	if n := s.sessions(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestRootNoCertificate(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	for name, info := range map[string]string{
		"nothing":           "",
		"a password":        "password\n",
		"a plain key":       "publickey ssh-ed25519 " + key2(cert.Key) + "\n",
		"another type":      "publickey ssh-rsa-cert-v01@openssh.com " + key(cert) + "\n",
		"no base64":         "publickey " + cert.Type() + " %%%%\n",
		"a line in between": "publickey\npublickey " + cert.Type() + "\n",
	} {
		if _, err := s.GetPwNam(ctx, root, alice); err != nil {
			t.Fatal(err)
		}
		p := s.login()
		_, err := s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: alice, Service: "sshd"}, AuthInfo: info})
		if err == nil {
			t.Errorf("%s opened a session", name)
		}
		s.eventually("the login process is ended", func() bool { return dead(p) })
	}
	// root's su joins a session that is there.
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PAMOpen(ctx, s.login(), wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: alice, Service: "su"}}); err != nil {
		t.Errorf("su beside a session: %v", err)
	}
}

func key2(k ssh.PublicKey) string {
	return strings.Fields(string(ssh.MarshalAuthorizedKey(k)))[1]
}

func TestRootRestartDuringLogin(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	p := s.login()
	if _, err := s.GetPwNam(ctx, root, alice); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.start()
	for _, again := range []bool{false, true} {
		if again { // another login has reserved an id since
			p = s.old()
			if _, err := s.GetPwNam(ctx, root, alice); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: alice, Service: "sshd"}, AuthInfo: authInfo(cert)})
		if !xos.Is(err, xos.Unavailable) {
			t.Errorf("a login from before the restart: %v", err)
		}
		s.eventually("the login process is ended", func() bool { return dead(p) })
	}
	if _, _, err := s.open(alice, cert); err != nil {
		t.Errorf("the next login: %v", err)
	}
}

func TestRootRestartDuringSession(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics", credtest.Groups("higgs"))
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	pw, _ := s.GetPwNam(ctx, root, alice)
	groups, _ := s.InitGroups(ctx, root, alice)
	gone, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	s.core.setDown(true)
	s.kill()
	kill(gone)
	s.eventually("it is dead", func() bool { return dead(gone) })
	s.start()
	s.eventually("only the living session is left", func() bool { return s.sessions() == 1 })
	if dead(p) {
		t.Error("a restart ended a login")
	}
	now, err := s.Of(ctx, pw.UID)
	if err != nil || now.ID != reply.Session {
		t.Errorf("session %v, %v", now.ID, err)
	}
	if _, err := s.Credential(ctx, alice); err != nil {
		t.Errorf("credential after the restart: %v", err)
	}
	if diff := cmp.Diff(groups, must(s.InitGroups(ctx, root, alice))); diff != "" {
		t.Errorf("groups after the restart: %s", diff)
	}
	if err := s.PAMClose(ctx, root, reply.Session); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Of(ctx, pw.UID); !xos.Is(err, xos.Permission) {
		t.Errorf("a closed session: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRootRevocation(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	p, _, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	bob := xos.Account{User: "bob", VO: "physics"}
	bcert, _ := s.ca.SSHUser("bob@physics")
	other, _, err := s.open(bob, bcert)
	if err != nil {
		t.Fatal(err)
	}
	uid := must(s.GetPwNam(ctx, root, alice)).UID
	begin := time.Now()
	s.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Reason: "removed from physics by root"})
	s.Changed(s.ca.Bundle())
	select {
	case a := <-s.Revoked():
		if a != (session.Sentence{Account: alice, Do: session.End}) {
			t.Errorf("revoked: %v", a)
		}
	case <-time.After(2 * time.Second):
		t.Fatal("nobody was told within 2 s")
	}
	s.eventually("her login is ended", func() bool { return dead(p) })
	s.eventually("her processes are killed", func() bool { return s.guard.hasKilled(uid) })
	s.eventually("her home is unmounted", func() bool { return !s.mounts.has("home-physics-alice") })
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	if dead(other) || s.sessions() != 1 {
		t.Error("bob was hit too")
	}
	if _, err := s.Credential(ctx, alice); err == nil {
		t.Error("her credential still serves")
	}
	ex, err := s.ExplainHere(as(uid), connect.NewRequest(&xosv1.ExplainHereRequest{}))
	if err != nil || ex.Msg.Allowed || !strings.Contains(ex.Msg.Lines[0], "removed from physics by root") {
		t.Errorf("explanation %v, %v", ex, err)
	}
	if _, _, err := s.open(alice, cert); !xos.Is(err, xos.Permission) {
		t.Errorf("her next login: %v", err)
	}
	// A membership given anew lets her in again, under the same uid.
	fresh, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), time.Hour))
	if _, _, err := s.open(alice, fresh); err != nil {
		t.Fatal(err)
	}
	s.Changed(s.ca.Bundle())
	if got := must(s.GetPwNam(ctx, root, alice)).UID; got != uid {
		t.Errorf("uid %d became %d", uid, got)
	}
	s.eventually("she stays", func() bool { return s.sessions() == 2 })
}

func TestRootVisibility(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	open := func(account string) uint32 {
		c, _ := s.ca.SSHUser(account, credtest.Groups("higgs"))
		a := must(xos.ParseAccount(account))
		if _, _, err := s.open(a, c); err != nil {
			t.Fatal(err)
		}
		return must(s.GetPwNam(ctx, root, a)).UID
	}
	uid := open("alice@physics")
	peers := map[string]wire.Peer{"root": {}, "bob": {UID: open("bob@physics")}, "carol": {UID: open("carol@chemistry")}, "local": {UID: 1000}, "nobody": {UID: 65534}}
	for who, p := range peers {
		want := who == "root" || who == "bob"
		check := func(what string, err error) {
			t.Helper()
			if want && err != nil || !want && !xos.Is(err, xos.NotFound) {
				t.Errorf("%s, %s: %v", who, what, err)
			}
		}
		_, err := s.GetPwNam(ctx, p, alice)
		check("name", err)
		_, err = s.GetPwUID(ctx, p, uid)
		check("uid", err)
		g, err := s.GetGrNam(ctx, p, "physics:higgs")
		check("group", err)
		if err == nil && !slices.Contains(g.Members, "alice@physics") {
			t.Errorf("members of physics:higgs: %q", g.Members)
		}
		_, err = s.GetGrGID(ctx, p, uid)
		check("private group", err)
		_, err = s.InitGroups(ctx, p, alice)
		check("groups", err)
		// What was never here is previewed to root only.
		_, err = s.GetPwNam(ctx, p, xos.Account{User: "dave", VO: "physics"})
		want = who == "root"
		check("a stranger", err)
		if want {
			continue
		}
		if _, err := s.ExplainHere(as(p.UID), connect.NewRequest(&xosv1.ExplainHereRequest{Subject: "alice@physics"})); !xos.Is(err, xos.Permission) {
			t.Errorf("%s asks about alice: %v", who, err)
		}
		if resp := must(s.ListSessions(as(p.UID), connect.NewRequest(&xosv1.ListSessionsRequest{}))); len(resp.Msg.Sessions) > 1 {
			t.Errorf("%s sees %d sessions", who, len(resp.Msg.Sessions))
		}
	}
	if _, err := s.Principals(ctx, wire.Peer{UID: 1000}, wire.PrincipalsRequest{Account: alice}); !xos.Is(err, xos.Permission) {
		t.Errorf("a local user plays sshd: %v", err)
	}
}

func TestRootCoreAway(t *testing.T) {
	s := newStage(t)
	s.core.setDown(true)
	cert, _ := s.ca.SSHUser("alice@physics")
	_, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatalf("a valid certificate was refused: %v", err)
	}
	if !strings.Contains(reply.Message, "the core is down") {
		t.Errorf("the login was told %q", reply.Message)
	}
	if s.mounts.has("home-physics-alice") {
		t.Error("a home without a credential")
	}
	s.core.setDown(false)
	s.eventually("the home comes with the core", func() bool { return s.mounts.has("home-physics-alice") })

	// Without news for too long nobody is let in.
	s.ca.Change(func(b *vom.Bundle) { b.Issued = time.Now().Add(-48 * time.Hour) })
	if _, _, err := s.open(alice, cert); !xos.Is(err, xos.Unavailable) {
		t.Errorf("after two days without news: %v", err)
	}
}

func TestRootHomeIsNotLedAstray(t *testing.T) {
	s := newStage(t)
	elsewhere := t.TempDir()
	os.MkdirAll(filepath.Join(s.dir, "home"), 0o755)
	if err := os.Symlink(elsewhere, filepath.Join(s.dir, "home/physics")); err != nil {
		t.Fatal(err)
	}
	cert, _ := s.ca.SSHUser("alice@physics")
	_, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Message == "" || s.mounts.has("home-physics-alice") {
		t.Error("a home was made behind a link")
	}
	if names := must(os.ReadDir(elsewhere)); len(names) != 0 {
		t.Errorf("made there: %v", names)
	}
}
