package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// principalsDir, below Config.Run, is where sshd finds the principal of those who
// need not be asked for: AuthorizedPrincipalsFile, below it the path of the home,
// then principalsFile.
const (
	principalsDir  = "principals"
	principalsFile = "as"
)

// vouch tells sshd in advance what xos-principals would say of a person, while she
// has a session that this machine's sshd opened and would be let in anew; else it
// takes that back. sshd runs no program then, which it does twice a login, and whose
// time it makes up to a multiple of one to all who fail. It is no right: sshd looks
// itself at a certificate's authority, principals, time and revocation, and PAMOpen
// verifies the one that is shown, by all rules, before anything is hers.
func (s *Service) vouch(p *person) {
	s.vouching.Lock()
	defer s.vouching.Unlock()
	s.mu.Lock()
	who, want, has := p.who, p.viaSSH > 0 && p.fate == "" && s.people[p.account] == p, p.vouched
	s.mu.Unlock()
	want = want && s.ctx.Err() == nil && s.Now().Before(who.NotAfter) && s.admits(s.ctx, who) == nil
	if want == has {
		return
	}
	path := s.principalsPath(p.account)
	var err error
	if want {
		err = s.announce(path, p.account)
	}
	if !want || err != nil {
		if gone := os.Remove(path); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err != nil { // xos-principals is asked, or PAMOpen refuses
		s.Log.Error("what sshd is told in advance", "account", p.account, "error", err)
		return
	}
	s.mu.Lock()
	p.vouched = want
	s.mu.Unlock()
}

func (s *Service) principalsPath(a xos.Account) string {
	return filepath.Join(s.cfg.Run, principalsDir, s.home(a), principalsFile)
}

// unannounce takes away what is left of what sshd was told of an account that is not
// here any more. vouching is held.
func (s *Service) unannounce(a xos.Account) {
	path := s.principalsPath(a)
	for _, path := range []string{path, filepath.Dir(path)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.Log.Error("what sshd was told in advance", "account", a, "error", err)
		}
	}
}

// vouched reports whether sshd may have let an account in by what it was told.
func (s *Service) vouched(a xos.Account) (who vom.Identity, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.people[a]
	if p == nil || !p.vouched {
		return vom.Identity{}, false
	}
	return p.who, true
}

// admits says why an identity that was verified before would not be let in now, by
// a certificate that has not expired.
func (s *Service) admits(ctx context.Context, who vom.Identity) error {
	if err := s.standing(who); err != nil {
		return err
	}
	if b := s.Bundle(); s.Now().After(b.ServesUntil(who.VO)) {
		return credential.Stale(b, who.VO)
	}
	if d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node); !d.Allow {
		return forbidden(who.Account, d)
	}
	return nil
}

// announce writes a principal to where sshd reads it as the person: her VO's
// members alone get there. What says when she comes and goes is in a directory of
// hers, since anybody may see how many names the VO's has. That the home leads to
// one account is what ties the name that logs in to this principal.
func (s *Service) announce(path string, a xos.Account) error {
	group, ok := s.Accounts.Group(string(a.VO))
	if !ok {
		return xos.Errorf(xos.NotFound, "VO %s has no group here", a.VO)
	}
	hers := filepath.Dir(path)
	vos := filepath.Dir(hers)
	at := filepath.Join(s.cfg.Run, principalsDir)
	for part := range strings.SplitSeq(strings.TrimPrefix(filepath.Dir(vos), at), "/") {
		at = filepath.Join(at, part)
		if err := directory(at, 0o711, 0); err != nil {
			return err
		}
	}
	if err := errors.Join(directory(vos, 0o750, int(group.ID)), directory(hers, 0o755, 0)); err != nil {
		return err
	}
	os.Remove(path)
	return os.WriteFile(path, []byte(a.String()+"\n"), 0o644)
}

// directory makes a directory, unless it is there; root's, and of a group.
func directory(path string, mode os.FileMode, gid int) error {
	if err := os.Mkdir(path, 0o700); errors.Is(err, os.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(os.Chown(path, 0, gid), os.Chmod(path, mode))
}
