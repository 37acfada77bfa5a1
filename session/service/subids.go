package service

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/wire"
)

// provide gives an account its subordinate ids, where the machine has a pool of
// them. A login that can have none is no less a login, and does not wait for
// useradd because of them.
func (s *Service) provide(ctx context.Context, a xos.Account) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := s.Accounts.Provide(ctx, a); err != nil {
		s.Log.Warn("no subordinate ids", "account", a, "error", err)
	}
}

// SubIDs implements wire.Handler. Nothing is given by being asked for: who is
// not logged in has no need of containers.
func (s *Service) SubIDs(_ context.Context, p wire.Peer, a xos.Account) (first, count uint32, err error) {
	if !s.serves(a.VO) || !s.sees(p, a.VO) {
		return 0, 0, unknown()
	}
	first, ok := s.Accounts.SubIDsOf(a)
	if !ok {
		return 0, 0, unknown()
	}
	return first, account.SubIDs, nil
}

// SubIDOwner implements wire.Handler.
func (s *Service) SubIDOwner(_ context.Context, p wire.Peer, id uint32) (uint32, error) {
	a, uid, ok := s.Accounts.SubIDOwner(id)
	if !ok || !s.serves(a.VO) || !s.sees(p, a.VO) {
		return 0, unknown()
	}
	return uid, nil
}

// ids are those by which what a uid's account runs is known here.
func (s *Service) ids(uid uint32) session.IDs {
	if a, ok := s.Accounts.UserOf(uid); ok {
		if e, ok := s.Accounts.User(a); ok {
			return idsOf(e)
		}
	}
	return session.IDs{UID: uid}
}

func idsOf(e account.Entry) session.IDs {
	ids := session.IDs{UID: e.ID}
	if e.Sub != 0 {
		ids.First, ids.Last = e.Sub, e.Sub+account.SubIDs-1
	}
	return ids
}

// runs reports whether a uid has a process, in a container of its own too.
func (s *Service) runs(ctx context.Context, uid uint32) (bool, error) {
	return s.looks.Running(ctx, s.ids(uid))
}

// kill ends every process of a uid, in containers of its own too.
func (s *Service) kill(ctx context.Context, uid uint32) error {
	return s.Guard.KillUser(ctx, s.ids(uid))
}
