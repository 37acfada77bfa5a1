package service

import (
	"cmp"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// proof is a password that was right: who then speaks through a login process,
// and the certificate that the core gave for it. It is used once.
type proof struct {
	account xos.Account
	shown   []byte // OpenSSH certificate, wire format
	// by are the process that asked, and its parent: sshd checks passwords in
	// a child of the process that then opens the session.
	by    [2]process.ID
	until time.Time
}

const (
	// proofTime is from a password to its session; sshd's LoginGraceTime.
	proofTime = 2 * time.Minute
	maxProofs = 1024
)

// remember keeps a proof for the session that follows.
func (s *Service) remember(p *proof) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireProofs()
	if len(s.proofs) >= maxProofs {
		return xos.Errorf(xos.Unavailable, "too many logins at once").WithHint("try again in a minute")
	}
	s.proofs = append(s.proofs, p)
	return nil
}

// expireProofs forgets those that are too old. mu is held.
func (s *Service) expireProofs() {
	now, kept := s.Now(), s.proofs[:0]
	for _, p := range s.proofs {
		if now.Before(p.until) {
			kept = append(kept, p)
		}
	}
	clear(s.proofs[len(kept):])
	s.proofs = kept
}

// spend takes the newest proof of an account by a process, and with it every
// other of the process: one password opens one session.
func (s *Service) spend(by process.ID, a xos.Account) *proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireProofs()
	var found *proof
	kept := s.proofs[:0]
	for _, p := range s.proofs {
		switch {
		case p.account != a || by != p.by[0] && by != p.by[1]:
			kept = append(kept, p)
		default:
			found = p
		}
	}
	clear(s.proofs[len(kept):])
	s.proofs = kept
	return found
}

// another tells whether a process has proved to be someone else, and not this
// account.
func (s *Service) another(by process.ID, a xos.Account) (other xos.Account, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireProofs()
	for _, p := range s.proofs {
		if by != p.by[0] && by != p.by[1] {
			continue
		}
		if p.account == a {
			return xos.Account{}, false
		}
		other, yes = p.account, true
	}
	return other, yes
}

func impostor(is, wants xos.Account) error {
	return vom.By(vom.RuleEvidence, xos.Errorf(xos.Permission, "who proved to be %s cannot log in as %s", is, wants))
}

// How a login proved itself, for the audit log.
const (
	byCertificate = "certificate"
	byPassword    = "password"
	byJoining     = "joining"
)

// evidence gives who the process proved to speak for, by a certificate, or a
// password. One that proved nothing, such as root's su or the user's service
// manager, joins a session that is open.
func (s *Service) evidence(r wire.PAMOpenRequest, proc process.ID) (who vom.Identity, shown []byte, how string, err error) {
	if other, yes := s.another(proc, r.Account); yes {
		return vom.Identity{}, nil, "", impostor(other, r.Account)
	}
	proven := s.spend(proc, r.Account)
	var first error
	for line := range strings.Lines(r.AuthInfo) {
		method, key, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if method != "publickey" {
			continue
		}
		who, shown, err := s.verify(r.Account, key)
		if err == nil {
			return who, shown, byCertificate, nil
		}
		if first == nil {
			first = err
		}
	}
	switch {
	case first != nil:
		return vom.Identity{}, nil, "", first
	case proven != nil:
		cert, err := credential.ParseSSH(proven.shown)
		if err != nil {
			return vom.Identity{}, nil, "", err
		}
		who, err := s.Verifier.SSH(cert, r.Account.String())
		return who, proven.shown, byPassword, err
	case r.AuthInfo != "":
		return vom.Identity{}, nil, "", vom.By(vom.RuleEvidence, xos.Errorf(xos.Permission, "%s has shown no certificate", r.Account).WithHint("xos login %s", r.Account))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.newest(r.Account); l != nil {
		return l.Identity, nil, byJoining, nil
	}
	return vom.Identity{}, nil, "", vom.By(vom.RuleEvidence, xos.Errorf(xos.Permission, "%s is not logged in on %s, and %s lets in only who is", r.Account, s.cfg.Node, cmp.Or(r.Service, "this program")).
		WithHint("log in there first, by ssh or with the grid password, and stay: sudo, su and cron can join that session"))
}
