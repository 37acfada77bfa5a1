package service_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/service"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

var loginID = regexp.MustCompile(`xos explain login (r-[0-9a-f]{12})`)

func (s *stage) explain(uid uint32, kind, subject string) (*xosv1.ExplainResponse, error) {
	resp, err := s.ExplainHere(as(uid), connect.NewRequest(&xosv1.ExplainHereRequest{Kind: kind, Subject: subject}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func rule(r *xosv1.ExplainResponse, name string) *xosv1.Rule {
	for _, x := range r.Rules {
		if strings.HasPrefix(x.Name, name) {
			return x
		}
	}
	return &xosv1.Rule{}
}

// TestRootExplainLogin: every refusal has an id by which it is explained in
// full to root, in short to the user, and to nobody else; the restart of a
// service leaves what the audit log has.
func TestRootExplainLogin(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	good, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, good); err != nil {
		t.Fatal(err)
	}
	uid := must(s.GetPwNam(ctx, root, alice)).UID
	bob, _ := s.ca.SSHUser("bob@physics")
	if _, _, err := s.open(xos.Account{User: "bob", VO: "physics"}, bob); err != nil {
		t.Fatal(err)
	}
	bobUID := must(s.GetPwNam(ctx, root, xos.Account{User: "bob", VO: "physics"})).UID
	expired, _ := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now().Add(-2*time.Hour), time.Hour))
	mallory, _ := s.ca.SSHUser("mallory@physics")
	banned := func() { s.ca.Change(func(b *vom.Bundle) { b.Bans = []vom.Ban{{Kind: vom.BanUser, Subject: "alice"}} }) }
	for _, tt := range []struct {
		name               string
		account            xos.Account
		first              func()
		cert               *ssh.Certificate
		rule, says, change string
	}{
		{"expired", alice, nil, expired, "certificate/validity", "expired", "xos login"},
		{"banned here", xos.Account{User: "mallory", VO: "physics"}, nil, mallory, "site/banned", "banned from node1", "node.toml"},
		{"banned everywhere", alice, banned, good, "grid/ban", "banned from the grid", "xos ban remove"},
	} {
		if tt.first != nil {
			tt.first()
		}
		_, err := s.Principals(ctx, root, wire.PrincipalsRequest{Account: tt.account, KeyType: tt.cert.Type(), Key: key(tt.cert)})
		m := loginID.FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatalf("%s: the refusal %v has no id", tt.name, err)
		}
		for _, restarted := range []bool{false, true} {
			if restarted {
				s.kill()
				s.start()
			}
			ex, err := s.explain(0, "login", m[1])
			if err != nil || ex.Allowed || len(ex.Lines) != 1 || !strings.Contains(ex.Lines[0], tt.says) || !strings.Contains(ex.Lines[0], tt.account.String()) {
				t.Errorf("%s (restarted %v): %v, %v", tt.name, restarted, ex, err)
				continue
			}
			r := rule(ex, tt.rule)
			if !r.Refused || !strings.Contains(r.Change, tt.change) {
				t.Errorf("%s (restarted %v): rule %v of %v", tt.name, restarted, r, ex.Rules)
			}
			if !restarted && (rule(ex, "trust/news").Text == "" || rule(ex, "site/vos").Refused) {
				t.Errorf("%s: root is not told every rule: %v", tt.name, ex.Rules)
			}
			own, err := s.explain(uid, "login", m[1])
			switch {
			case tt.account != alice || restarted:
				if !xos.Is(err, xos.NotFound) {
					t.Errorf("%s: to another user, or from the audit log: %v, %v", tt.name, own, err)
				}
			case err != nil || !rule(own, tt.rule).Refused || rule(own, "site/vos").Text == "" || len(own.Rules) != len(ex.Rules):
				t.Errorf("%s: she is told %v, %v", tt.name, own, err)
			}
			_, err = s.explain(bobUID, "login", m[1])
			_, none := s.explain(bobUID, "login", "r-0123456789ab")
			if !xos.Is(err, xos.NotFound) || strings.ReplaceAll(err.Error(), m[1], "r-0123456789ab") != none.Error() {
				t.Errorf("%s: bob was told: %v, and of none %v", tt.name, err, none)
			}
		}
	}
	for _, id := range []string{"r-", "r-0123456789ab", "r-0123456789ag", "r-" + strings.Repeat("0", 100)} {
		if _, err := s.explain(0, "login", id); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.explain(4242, "login", "r-0123456789ab"); !xos.Is(err, xos.Permission) {
		t.Errorf("a local user asked: %v", err)
	}
	if _, err := s.explain(0, "weather", "alice@physics"); !xos.Is(err, xos.Invalid) {
		t.Errorf("no kind: %v", err)
	}
}

// TestRootRefusalsAreBounded: a flood of them forgets the oldest, and its
// repetitions share an id.
func TestRootRefusalsAreBounded(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	s.auditor = forgetful{s.audit}
	s.kill()
	s.start()
	ask := func(i int) string {
		cert, _ := s.ca.SSHUser("alice@physics")
		a := xos.Account{User: xos.UserID("u" + strings.Repeat("x", i%8) + "y"), VO: "physics"}
		_, err := s.Principals(ctx, root, wire.PrincipalsRequest{Account: a, KeyType: cert.Type(), Key: key(cert)})
		m := loginID.FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatal(err)
		}
		return m[1]
	}
	first := ask(0)
	if again := ask(0); again != first {
		t.Errorf("the same refusal at once is %s and %s", first, again)
	}
	for i := range 2000 {
		s.setClock(time.Duration(i+1) * 3 * time.Second)
		ask(i)
	}
	if _, err := s.explain(0, "login", first); !xos.Is(err, xos.NotFound) {
		t.Errorf("the oldest of many: %v", err)
	}
	if ex, err := s.explain(0, "login", ask(1)); err != nil || len(ex.Lines) != 1 {
		t.Errorf("the newest: %v, %v", ex, err)
	}
}

func TestRootExplainRules(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	uid := must(s.GetPwNam(context.Background(), root, alice)).UID
	ex, err := s.explain(0, "user", "alice@physics")
	if err != nil || !ex.Allowed || len(ex.Rules) < 5 {
		t.Fatalf("%v, %v", ex, err)
	}
	serial := must(s.Of(context.Background(), uid)).Identity.Serial
	if ex, err := s.explain(0, "cert", serial); err != nil || !ex.Allowed || rule(ex, "certificate/validity").Text == "" {
		t.Errorf("certificate: %v, %v", ex, err)
	}
	inside := regexp.MustCompile(`\[policies [0-9a-f]+`)
	if own, err := s.explain(uid, "user", ""); err != nil || !own.Allowed || len(own.Rules) != len(ex.Rules) || inside.MatchString(own.String()) || !inside.MatchString(ex.String()) {
		t.Errorf("she is told %v, %v; root %v", own, err, ex)
	}
	for _, want := range []string{"site/vos", "trust/news", "grid/ban", "grid/revocation", "site/banned", "site/policy", "vo/physics"} {
		if r := rule(ex, want); r.Text == "" || r.Refused || r.Change != "" {
			t.Errorf("rule %s: %v", want, r)
		}
	}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Policy = `forbid (principal, action, resource);` })
	for _, asked := range []struct {
		uid  uint32
		want int
	}{{0, 7}, {uid, 7}} {
		ex, err := s.explain(asked.uid, "user", "alice@physics")
		if err != nil || ex.Allowed || len(ex.Rules) < asked.want || !rule(ex, "vo/physics").Refused || !strings.Contains(rule(ex, "vo/physics").Change, "set-policy") {
			t.Errorf("to uid %d: %v, %v", asked.uid, ex, err)
		}
		if secret := strings.Contains(ex.String(), "forbid (principal"); secret {
			t.Errorf("the policy's text was shown to uid %d", asked.uid)
		}
	}
	s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Policy = ""; b.Issued = time.Now().Add(-25 * time.Hour) })
	if ex, err := s.explain(uid, "", ""); err != nil || ex.Allowed || !strings.Contains(ex.Lines[0], "no news") || rule(ex, "trust/news").Change == "" {
		t.Errorf("without news: %v, %v", ex, err)
	}
	s.ca.Change(func(b *vom.Bundle) { b.Issued = time.Now() })
	s.remove(vom.FateFreeze, time.Hour)
	s.eventually("she is told that it is frozen", func() bool {
		ex, err := s.explain(uid, "", "")
		return err == nil && !ex.Allowed && strings.Contains(strings.Join(ex.Lines, "\n"), "frozen until")
	})
}

// TestRootExplainEndedSession: a session that is over, and what it was opened
// with, is known from the audit log: to root, and to whose it was.
func TestRootExplainEndedSession(t *testing.T) {
	s := newStage(t)
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	bob, _ := s.ca.SSHUser("bob@physics")
	if _, _, err := s.open(xos.Account{User: "bob", VO: "physics"}, bob); err != nil {
		t.Fatal(err)
	}
	uid, bobUID := must(s.GetPwNam(ctx, root, alice)).UID, must(s.GetPwNam(ctx, root, xos.Account{User: "bob", VO: "physics"})).UID
	serial := must(s.Of(ctx, uid)).Identity.Serial
	s.explained(t, reply.Session, serial, uid, bobUID)
	if err := unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	s.eventually("the session is over", func() bool { return s.sessions() == 1 })
	s.explained(t, reply.Session, serial, uid, bobUID)
	s.ca.Revoke(vom.Revocation{Serial: serial, Before: time.Now(), Reason: "stolen"})
	for _, by := range []uint32{0, uid} {
		if ex, err := s.explain(by, "cert", serial); err != nil || ex.Allowed || !strings.Contains(rule(ex, "grid/revocation").Text, "stolen") {
			t.Errorf("revoked, to uid %d: %v, %v", by, ex, err)
		}
	}
}

// explained asks about a session and a certificate of alice's that are good.
func (s *stage) explained(t *testing.T, id xos.SessionID, serial string, uid, other uint32) {
	t.Helper()
	for kind, subject := range map[string]string{"login": string(id), "cert": serial} {
		for _, by := range []uint32{0, uid} {
			ex, err := s.explain(by, kind, subject)
			if err != nil || !ex.Allowed || !strings.Contains(strings.Join(ex.Lines, "\n"), string(id)) {
				t.Errorf("%s %s, to uid %d: %v, %v", kind, subject, by, ex, err)
			}
		}
		_, err := s.explain(other, kind, subject)
		_, none := s.explain(other, kind, "s-0123456789abcdef")
		if !xos.Is(err, xos.Permission) || err.Error() != none.Error() {
			t.Errorf("%s %s, to another: %v, and of none %v", kind, subject, err, none)
		}
	}
}

// forgetful keeps nothing, so that a flood costs no disk.
type forgetful struct{ service.Auditor }

func (forgetful) Append(context.Context, audit.Record) error       { return nil }
func (forgetful) Note(context.Context, audit.Record) (bool, error) { return true, nil }
