package service

import (
	"context"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

const maxLearned = 4096

// Principals implements wire.Handler. The key's possession is not proven yet:
// nothing is allocated and nothing made durable here.
func (s *Service) Principals(ctx context.Context, p wire.Peer, r wire.PrincipalsRequest) (string, error) {
	// sshd asks as root or as a system user; 65534 is nobody.
	if p.UID >= 1000 && p.UID != 65534 {
		return "", xos.Errorf(xos.Permission, "only sshd may ask this")
	}
	v := visitor{peer: p, sshd: true}
	if !s.serves(r.Account.VO) {
		return "", s.refused(ctx, v, r.Account, "", s.notServed(r.Account.VO))
	}
	who, _, err := s.verify(r.Account, r.KeyType+" "+r.Key)
	v.known = who.User != ""
	if err != nil {
		return "", s.refused(ctx, v, r.Account, who.Serial, err)
	}
	if d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node); !d.Allow {
		return "", s.refused(ctx, v, r.Account, who.Serial, forbidden(who.Account, d))
	}
	s.expect(who)
	return r.Account.String(), nil
}

// expect prepares for the session of one who is let in: the host program asks
// for her groups before it.
func (s *Service) expect(who vom.Identity) {
	s.Accounts.Prove(who.Account)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.learned) >= maxLearned {
		for a := range s.learned { // any: its groups come with the session
			delete(s.learned, a)
			break
		}
	}
	s.learned[who.Account] = who.Groups
}

// verify reads and verifies a certificate line "TYPE BASE64" that shall log in
// as an account. The certificate comes back in wire format.
func (s *Service) verify(a xos.Account, text string) (vom.Identity, []byte, error) {
	cert, err := credential.ParseSSH([]byte(text))
	if err != nil {
		return vom.Identity{}, nil, err
	}
	if kind, _, _ := strings.Cut(text, " "); kind != cert.Type() {
		return vom.Identity{}, nil, xos.Errorf(xos.Invalid, "a certificate of type %q was announced as %.80q", cert.Type(), kind)
	}
	who, err := s.Verifier.SSH(cert, a.String())
	return who, cert.Marshal(), err
}

func forbidden(a xos.Account, d vom.Decision) error {
	rule := vom.RuleVOPolicy
	if len(d.Rules) > 0 {
		rule = vom.Rule(d.Rules[0])
	}
	return vom.By(rule, xos.Errorf(xos.Permission, "%s may not log in: %s", a, d.Reason).WithHint("xos explain %s", a))
}
