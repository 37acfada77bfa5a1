package service

import (
	"context"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
)

// Who sees whom: root all, a grid user her own VO, all others nobody. What
// must not be seen is not there.

func unknown() error { return xos.Errorf(xos.NotFound, "no such name or id") }

func (s *Service) sees(p wire.Peer, vo xos.VOName) bool {
	if p.UID == 0 {
		return true
	}
	a, ok := s.Accounts.UserOf(p.UID)
	return ok && a.VO == vo
}

// GetPwNam implements wire.Handler. Before a login root is told the uid that
// the account would have, whether it exists or not: a VO's members cannot be
// found out by asking.
func (s *Service) GetPwNam(_ context.Context, p wire.Peer, a xos.Account) (wire.Passwd, error) {
	if !s.serves(a.VO) || !s.sees(p, a.VO) {
		return wire.Passwd{}, unknown()
	}
	if e, ok := s.Accounts.User(a); ok {
		return s.passwd(a, a.String(), e.ID), nil
	}
	if p.UID != 0 {
		return wire.Passwd{}, unknown()
	}
	uid, err := s.Accounts.Preview(a)
	if err != nil {
		return wire.Passwd{}, err
	}
	return s.passwd(a, a.String(), uid), nil
}

// GetPwUID implements wire.Handler.
func (s *Service) GetPwUID(_ context.Context, p wire.Peer, uid uint32) (wire.Passwd, error) {
	a, ok := s.Accounts.UserOf(uid)
	if !ok || !s.sees(p, a.VO) {
		return wire.Passwd{}, unknown()
	}
	return s.passwd(a, a.String(), uid), nil
}

// GetGrNam implements wire.Handler.
func (s *Service) GetGrNam(ctx context.Context, p wire.Peer, name string) (wire.Group, error) {
	if a, err := xos.ParseAccount(name); err == nil {
		pw, err := s.GetPwNam(ctx, p, a)
		return wire.Group{Name: name, GID: pw.GID}, err
	}
	e, ok := s.Accounts.Group(name)
	if !ok {
		return wire.Group{}, unknown()
	}
	return s.group(p, name, e.ID)
}

// GetGrGID implements wire.Handler.
func (s *Service) GetGrGID(_ context.Context, p wire.Peer, gid uint32) (wire.Group, error) {
	if name, ok := s.Accounts.GroupOf(gid); ok {
		return s.group(p, name, gid)
	}
	a, ok := s.Accounts.UserOf(gid)
	if !ok || !s.sees(p, a.VO) {
		return wire.Group{}, unknown()
	}
	return wire.Group{Name: a.String(), GID: gid}, nil
}

// group gives a VO group with its members of this machine.
func (s *Service) group(p wire.Peer, name string, gid uint32) (wire.Group, error) {
	vo, _, _ := strings.Cut(name, ":")
	return s.members(p, xos.VOName(vo), name, gid)
}

func (s *Service) members(p wire.Peer, vo xos.VOName, name string, gid uint32) (wire.Group, error) {
	if !s.sees(p, vo) {
		return wire.Group{}, unknown()
	}
	own, _ := s.Accounts.Group(string(vo))
	g := wire.Group{Name: name, GID: gid}
	users, _ := s.Accounts.VO(vo)
	const room = 60000 // bytes of names that fit into an answer
	size := 0
	for _, u := range users {
		a, err := xos.ParseAccount(u.Name)
		if err != nil {
			return wire.Group{}, err
		}
		for _, id := range s.gids(a, []uint32{own.ID}) {
			if size += 4 + len(u.Name); id == gid && size < room && len(g.Members) < 8192 {
				g.Members = append(g.Members, u.Name)
			}
		}
	}
	return g, nil
}

// InitGroups implements wire.Handler.
func (s *Service) InitGroups(_ context.Context, p wire.Peer, a xos.Account) ([]uint32, error) {
	if !s.serves(a.VO) || !s.sees(p, a.VO) || !s.Accounts.Known(a) {
		return nil, unknown()
	}
	own, ok := s.Accounts.Group(string(a.VO))
	if !ok {
		return nil, unknown()
	}
	return s.gids(a, []uint32{own.ID}), nil
}
