package service_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// Issue certifies alice, bob and others whose password is "secret of NAME"; a
// name that is no member's is refused like a wrong password.
func (c *core) Issue(_ context.Context, req *connect.Request[xosv1.IssueRequest]) (*connect.Response[xosv1.IssueResponse], error) {
	c.mu.Lock()
	c.issues++
	down := c.down
	c.mu.Unlock()
	if down {
		return nil, xos.Errorf(xos.Unavailable, "the core is down")
	}
	a, err := xos.ParseAccount(req.Msg.Account)
	if err != nil {
		return nil, err
	}
	if req.Msg.Password != "secret of "+string(a.User) || a.User == "nobodys" {
		return nil, xos.Errorf(xos.Permission, "wrong user, password or token")
	}
	csr, err := x509.ParseCertificateRequest(req.Msg.Csr)
	if err != nil {
		return nil, err
	}
	account, public := a.String(), csr.PublicKey.(ed25519.PublicKey)
	switch a.User { // a core that errs
	case "swapped":
		account = "bob@physics"
	case "rekeyed":
		public, _, _ = ed25519.GenerateKey(nil)
	}
	cert, _ := c.ca.SSHUser(account, credtest.PublicKey(public), credtest.Groups("higgs"))
	return connect.NewResponse(&xosv1.IssueResponse{SshCertificate: string(ssh.MarshalAuthorizedKey(cert))}), nil
}

// types says a password to a login process's PAM stack.
func (s *stage) types(p wire.Peer, a xos.Account, service, from, password string) error {
	s.Helper()
	if _, err := s.GetPwNam(context.Background(), root, a); err != nil && !xos.Is(err, xos.NotFound) {
		s.Fatal(err)
	}
	return s.PAMAuth(context.Background(), p, wire.PAMAuthRequest{
		PAMRequest: wire.PAMRequest{Account: a, Service: service, RemoteHost: from}, Password: wire.Secret(password)})
}

// enters opens a session without a certificate.
func (s *stage) enters(p wire.Peer, a xos.Account, service, info string) (wire.PAMOpenReply, error) {
	r := wire.PAMRequest{Account: a, Service: service}
	if _, err := s.PAMAccount(context.Background(), p, r); err != nil {
		return wire.PAMOpenReply{}, err
	}
	reply, err := s.PAMOpen(context.Background(), p, wire.PAMOpenRequest{PAMRequest: r, AuthInfo: info})
	if reply.Refused != nil {
		reply.Refused() // as who serves the modules does
	}
	return reply, err
}

func TestRootPassword(t *testing.T) {
	s := newStage(t)
	for _, info := range []string{"", "keyboard-interactive/pam\n", "password\n"} {
		p := s.login()
		if err := s.types(p, alice, "login", "", "secret of alice"); err != nil {
			t.Fatal(err)
		}
		if groups, err := s.InitGroups(context.Background(), root, alice); err != nil || len(groups) != 2 {
			t.Errorf("groups before the session: %v, %v", groups, err)
		}
		reply, err := s.enters(p, alice, "login", info)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Message != "" || !s.mounts.has("home-physics-alice") {
			t.Errorf("the login was told %q", reply.Message)
		}
		uid := must(s.GetPwNam(context.Background(), root, alice)).UID
		if c, err := s.Credential(context.Background(), alice); err != nil || c.Identity.Node != "node1" {
			t.Errorf("the session's credential is %+v, %v", c.Identity, err)
		}
		// What the password was worth is nowhere kept: the only keys are those of
		// the delegated credential and of the session.
		if files, _ := filepath.Glob(filepath.Join(s.run, "cred/*/*")); len(files) != 3 {
			t.Errorf("kept: %v", files)
		}
		// One password, one session.
		s.PAMClose(context.Background(), p, reply.Session)
		s.eventually("the session ends", func() bool { return s.sessions() == 0 })
		if _, err := s.enters(p, alice, "login", info); !xos.Is(err, xos.Permission) {
			t.Errorf("a second session on one password: %v", err)
		}
		s.eventually("its process is ended", func() bool { return dead(p) })
		s.eventually("the home is gone", func() bool { return !s.mounts.has("home-physics-alice") })
		s.eventually("the credential is gone", func() bool {
			_, err := os.Stat(filepath.Join(s.run, "cred", strconv.Itoa(int(uid))))
			return os.IsNotExist(err)
		})
	}
	entries := must(s.audit.Query(audit.Filter{Subject: "alice@physics"}))
	if !slices.ContainsFunc(entries, func(e audit.Entry) bool { return e.Allowed && e.Detail["by"] == "password" }) {
		t.Error("it is not on record that a password let her in")
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "audit.log"))
	if err != nil || strings.Contains(string(data), "secret of") {
		t.Errorf("the audit log has a password (%v)", err)
	}
}

// oneAnswer is all that a wrong password and an unknown user are told.
var oneAnswer = regexp.MustCompile(`^wrong user or password \(why: root, by xos explain login r-[0-9a-f]{12}\)$`)

func TestRootPasswordRefused(t *testing.T) {
	s := newStage(t)
	s.ca.Revoke(vom.Revocation{User: "eve", VO: "physics", Before: time.Now().Add(time.Hour), Reason: "removed"})
	wrong := "wrong user or password"
	for _, c := range []struct {
		name, account, password, says string
		kind                          xos.Kind
		asks                          bool
	}{
		{"wrong", "alice@physics", "guess", wrong, xos.Permission, true},
		{"unknown", "nobodys@physics", "guess", wrong, xos.Permission, true},
		{"no such VO", "alice@biology", "secret of alice", wrong, xos.Permission, false},
		{"empty", "alice@physics", "", wrong, xos.Permission, false},
		{"no text", "alice@physics", "\xff\xfe", wrong, xos.Permission, false},
		{"revoked", "eve@physics", "secret of eve", wrong, xos.Permission, true},
		{"banned", "mallory@physics", "secret of mallory", "banned", xos.Permission, true},
		{"another's certificate", "swapped@physics", "secret of swapped", wrong, xos.Permission, true},
		{"another key's certificate", "rekeyed@physics", "secret of rekeyed", "another key", xos.Internal, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := must(xos.ParseAccount(c.account))
			p, asked := s.login(), s.core.asked()
			err := s.types(p, a, "su", "", c.password)
			if !xos.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || c.says == wrong && !oneAnswer.MatchString(err.Error()) {
				t.Errorf("it says %v", err)
			}
			if (s.core.asked() > asked) != c.asks {
				t.Error("who asked the core?")
			}
			if _, err := s.enters(p, a, "su", ""); err == nil {
				t.Error("a session was opened")
			}
			if c.password != "" && strings.Contains(err.Error(), c.password) {
				t.Errorf("the password is in %v", err)
			}
		})
	}
	s.core.setDown(true)
	if err := s.types(s.login(), alice, "su", "", "secret of alice"); !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "the core is down") {
		t.Errorf("without the core: %v", err)
	}
	s.core.setDown(false)

	// A proof ends with its account's access, its time, and its service.
	late := func(name string, between func()) {
		t.Helper()
		p := s.login()
		if err := s.types(p, alice, "su", "10.0.0."+name, "secret of alice"); err != nil {
			t.Fatal(err)
		}
		between()
		if _, err := s.enters(p, alice, "su", ""); err == nil {
			t.Errorf("%s: a session was opened", name)
		}
	}
	late("too late", func() { s.setClock(3 * time.Minute) })
	s.setClock(0)
	late("after a restart", func() { s.kill(); s.start() })
	late("revoked meanwhile", func() {
		s.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now().Add(time.Hour), Reason: "removed"})
	})
}

// TestRootPasswordLimits: wrong passwords are few, for one account, and from
// one origin; others do not suffer.
func TestRootPasswordLimits(t *testing.T) {
	s := newStage(t)
	p := s.login()
	guess := func(user, from, password string) error {
		t.Helper()
		return s.types(p, xos.Account{User: xos.UserID(user), VO: "physics"}, "sshd", from, password)
	}
	for range 5 {
		if err := guess("alice", "192.0.2.1", "guess"); !xos.Is(err, xos.Permission) {
			t.Fatal(err)
		}
	}
	asked := s.core.asked()
	for _, password := range []string{"guess", "secret of alice"} {
		if err := guess("alice", "192.0.2.1", password); !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "try again in 12s") {
			t.Errorf("the sixth: %v", err)
		}
	}
	if s.core.asked() != asked {
		t.Error("the core was asked all the same")
	}
	// From elsewhere she gets in, and after a while from there too.
	if err := guess("alice", "192.0.2.2", "secret of alice"); err != nil {
		t.Error(err)
	}
	s.setClock(13 * time.Second)
	if err := guess("alice", "192.0.2.1", "secret of alice"); err != nil {
		t.Error(err)
	}
	// An origin does not try all the names there are, and a right password of
	// its own does not help it.
	for i := range 15 + 2 { // two of the five are forgiven with time
		if err := guess("u"+strconv.Itoa(i), "192.0.2.1", "guess"); !xos.Is(err, xos.Permission) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := guess("bob", "192.0.2.1", "secret of bob"); !xos.Is(err, xos.Unavailable) {
		t.Errorf("after twenty: %v", err)
	}
	// An account is not guessed from everywhere.
	for i := range 20 {
		if err := guess("carla", "198.51.100."+strconv.Itoa(i), "guess"); !xos.Is(err, xos.Permission) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := guess("carla", "198.51.100.77", "secret of carla"); !xos.Is(err, xos.Unavailable) {
		t.Errorf("after twenty origins: %v", err)
	}
	// A local user's origin is himself, on whatever terminal.
	local := 0
	for range 6 {
		if err := guess("dana", "", "guess"); xos.Is(err, xos.Permission) {
			local++
		}
	}
	if local != 5 {
		t.Errorf("%d local guesses", local)
	}
}

// TestRootCVE_2024_9313: who has proved to be alice opens no session as bob, though
// bob has one that might be joined: by the service, and by a program that
// changes PAM_USER on the way, with the real libpam and module.
func TestRootCVE_2024_9313(t *testing.T) {
	s := newStage(t)
	bob := xos.Account{User: "bob", VO: "physics"}
	cert, _ := s.ca.SSHUser("bob@physics")
	if _, _, err := s.open(bob, cert); err != nil {
		t.Fatal(err)
	}
	for _, info := range []string{"", "keyboard-interactive/pam\n", authInfo(cert)} {
		p := s.login()
		if err := s.types(p, alice, "sshd", "192.0.2.7", "secret of alice"); err != nil {
			t.Fatal(err)
		}
		r := wire.PAMRequest{Account: bob, Service: "sshd"}
		if _, err := s.PAMAccount(context.Background(), p, r); !xos.Is(err, xos.Permission) {
			t.Errorf("account: %v", err)
		}
		if _, err := s.PAMOpen(context.Background(), p, wire.PAMOpenRequest{PAMRequest: r, AuthInfo: info}); !xos.Is(err, xos.Permission) || !strings.Contains(err.Error(), "alice@physics cannot log in as bob@physics") {
			t.Errorf("session with %q: %v", info, err)
		}
		s.eventually("the login process is ended", func() bool { return dead(p) })
	}

	need.File(t, "/usr/include/security/pam_appl.h")
	room := wiretest.NewRoom(t, "files")
	room.Build(t, "../../pam_xos/build.sh", "pam_xos.so")
	room.PAM(t, "other", "auth required /run/lib/pam_xos.so\naccount required /run/lib/pam_xos.so\nsession required /run/lib/pam_xos.so\n")
	host := room.Compile(t, "testdata/pamhost.c", "pamhost", "-lpam")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: room.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- wire.Serve(ctx, l, s.Service, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-done }()
	for _, c := range []struct{ first, then, says string }{
		{"alice@physics", "alice@physics", "open 0"},
		{"alice@physics", "bob@physics", "account 6"},
		{"alice@physics", "root", "open 6"}, // no business of this module, and there is no other
	} {
		for _, a := range []string{c.first, "bob@physics"} {
			if _, err := s.GetPwNam(context.Background(), root, must(xos.ParseAccount(a))); err != nil {
				t.Fatal(err)
			}
		}
		out, err := room.Command("/run/lib/"+filepath.Base(host), c.first, "secret of alice", c.then).CombinedOutput()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			t.Fatal(err)
		}
		if !strings.Contains(string(out), "auth 0\n") || !strings.Contains(string(out), c.says+"\n") {
			t.Errorf("%s, then %s: %s %v", c.first, c.then, out, err)
		}
	}
}
