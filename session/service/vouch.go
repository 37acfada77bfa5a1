package service

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/xtreemos/xos"
)

// principalsDir, below Config.Run, is where sshd finds the principal of those who
// need not be asked for: AuthorizedPrincipalsFile, below it the path of the home.
const principalsDir = "principals"

// vouch tells sshd in advance what xos-principals would say of a person, while she
// has a session here and every rule lets her open another; else it takes that back.
// sshd runs no program then, which it does twice a login, and whose time it makes
// up to a multiple of one to all who fail. It is no right: sshd looks itself at a
// certificate's authority, principals, time and revocation, and PAMOpen verifies
// the one that is shown, by all rules, before anything is hers.
func (s *Service) vouch(p *person) {
	s.vouching.Lock()
	defer s.vouching.Unlock()
	s.mu.Lock()
	who, want, has := p.who, p.open > 0 && p.fate == "" && s.people[p.account] == p, p.vouched
	s.mu.Unlock()
	if want {
		_, refused := refusing(s.rules(s.ctx, p.account, &who))
		want = !refused && s.ctx.Err() == nil
	}
	if want == has {
		return
	}
	path := filepath.Join(s.cfg.Run, principalsDir, s.home(p.account))
	var err error
	if want {
		err = s.announce(path, p.account)
	} else if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil { // xos-principals is asked, or PAMOpen refuses
		s.Log.Error("what sshd is told in advance", "account", p.account, "error", err)
		return
	}
	s.mu.Lock()
	p.vouched = want
	s.mu.Unlock()
}

// announce writes a principal to where sshd reads it as the person: her VO's
// members alone get there, for others nobody has a session.
func (s *Service) announce(path string, a xos.Account) error {
	group, ok := s.Accounts.Group(string(a.VO))
	if !ok {
		return xos.Errorf(xos.NotFound, "VO %s has no group here", a.VO)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := errors.Join(os.Chown(dir, 0, int(group.ID)), os.Chmod(dir, 0o750)); err != nil {
		return err
	}
	os.Remove(path)
	return os.WriteFile(path, []byte(a.String()+"\n"), 0o644)
}
