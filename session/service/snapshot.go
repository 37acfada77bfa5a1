package service

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/wire"
)

func (s *Service) snapshots() string { return filepath.Join(s.cfg.Run, "nss") }

// serveVOs publishes every VO that this machine serves, with the groups that
// the bundle names, and takes back those that it does not serve any more.
func (s *Service) serveVOs(ctx context.Context) {
	served := map[xos.VOName]bool{}
	for _, vo := range s.Bundle().VOs {
		if !s.Policy.Serves(vo.Name) {
			continue
		}
		names := []string{string(vo.Name)}
		for _, g := range vo.Groups {
			names = append(names, string(vo.Name)+":"+string(g))
		}
		_, err := s.Accounts.Groups(ctx, names)
		if err == nil {
			err = s.publishVO(vo.Name)
		}
		if err != nil {
			s.Log.Error("this VO is not served", "vo", vo.Name, "error", err)
			continue
		}
		served[vo.Name] = true
	}
	if err := s.snaps.Retain(served); err != nil {
		s.Log.Error("taking VOs back", "error", err)
	}
}

// publishVO publishes all of a VO.
func (s *Service) publishVO(vo xos.VOName) error {
	return s.snaps.Publish(vo, func() (wire.Whole, error) {
		own, ok := s.Accounts.Group(string(vo))
		if !ok {
			return wire.Whole{}, xos.Errorf(xos.Internal, "VO %s has no group", vo)
		}
		users, groups := s.Accounts.VO(vo)
		home, gids := s.homes(vo, users), s.allGIDs(vo, own.ID, users)
		w := wire.Whole{VO: vo, GID: own.ID, Len: len(users), User: func(i int) wire.SnapshotUser {
			return wire.SnapshotUser{Passwd: s.passwdAt(users[i].Name, users[i].ID, home(i)), Groups: gids(i)}
		}}
		for _, g := range groups {
			w.Groups = append(w.Groups, wire.SnapshotGroup{Name: g.Name, GID: g.ID})
		}
		return w, nil
	})
}

// publish publishes what an account is now, or that it is no more.
func (s *Service) publish(a xos.Account) error {
	due, err := s.snaps.Change(a.VO, a.String(), func() (*wire.SnapshotUser, error) {
		e, ok := s.Accounts.User(a)
		if !ok {
			return nil, nil
		}
		own, ok := s.Accounts.Group(string(a.VO))
		if !ok {
			return nil, xos.Errorf(xos.Internal, "VO %s has no group", a.VO)
		}
		return &wire.SnapshotUser{Passwd: s.passwd(a, a.String(), e.ID), Groups: s.gids(a, []uint32{own.ID})}, nil
	})
	switch {
	case xos.Is(err, xos.NotFound), xos.Is(err, xos.TooLarge):
		return s.publishVO(a.VO)
	case due && s.ctx.Err() == nil:
		s.work.Go(func() {
			if err := s.publishVO(a.VO); err != nil {
				s.Log.Error("publishing all of a VO", "vo", a.VO, "error", err)
			}
		})
	}
	return err
}

func (s *Service) passwd(a xos.Account, name string, uid uint32) wire.Passwd {
	return s.passwdAt(name, uid, s.home(a))
}

func (s *Service) passwdAt(name string, uid uint32, home string) wire.Passwd {
	return wire.Passwd{Name: name, UID: uid, GID: uid, Gecos: name, Dir: home, Shell: s.cfg.Shell}
}

// homes gives what gives the home of each user, all of them in one piece of
// memory: there may be very many.
func (s *Service) homes(vo xos.VOName, users []account.Holder) func(i int) string {
	parent := s.home(xos.Account{VO: vo}) // which ends in a slash
	size := 0
	for _, u := range users {
		size += len(parent) + len(u.Name) // which has the VO's too
	}
	var text strings.Builder
	text.Grow(size)
	ends := make([]uint32, 1, len(users)+1)
	for _, u := range users {
		user, _, _ := strings.Cut(u.Name, "@")
		text.WriteString(parent)
		text.WriteString(user)
		ends = append(ends, uint32(text.Len()))
	}
	all := text.String()
	return func(i int) string { return all[ends[i]:ends[i+1]] }
}

// allGIDs gives what gives the gids of each user: of most nothing is known but
// that they are in the VO.
func (s *Service) allGIDs(vo xos.VOName, own uint32, users []account.Holder) func(i int) []uint32 {
	var known []xos.Account
	s.mu.Lock()
	for a, p := range s.people {
		if a.VO == vo && len(p.groups) > 0 {
			known = append(known, a)
		}
	}
	for a := range s.learned {
		if a.VO == vo {
			known = append(known, a)
		}
	}
	s.mu.Unlock()
	only, more := []uint32{own}, map[uint32][]uint32{} // by uid
	for _, a := range known {
		if e, ok := s.Accounts.User(a); ok {
			more[e.ID] = s.gids(a, only)
		}
	}
	return func(i int) []uint32 {
		if gids, ok := more[users[i].ID]; ok {
			return gids
		}
		return only
	}
}

// gids gives the VO groups of an account: those of her newest certificate, and
// her VO's own in any case, which is all if nothing else is known.
func (s *Service) gids(a xos.Account, own []uint32) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.people[a]; p != nil && len(p.groups) > 0 {
		var ids []uint32
		for _, g := range p.groups {
			ids = append(ids, g.GID)
		}
		return ids
	}
	ids := own
	for _, g := range s.learned[a] {
		if e, ok := s.Accounts.Group(string(a.VO) + ":" + string(g)); ok {
			ids = append(ids[:len(ids):len(ids)], e.ID)
		}
	}
	return ids
}
