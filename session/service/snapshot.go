package service

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/xtreemos/xos"
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
	entries, err := os.ReadDir(s.snapshots())
	if err != nil {
		s.Log.Error("reading the snapshots", "error", err)
		return
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".snap")
		vo, ok2 := strings.CutPrefix(name, "vo-")
		switch {
		case !ok || !ok2:
			os.Remove(filepath.Join(s.snapshots(), e.Name())) // a write that was cut short
		case !served[xos.VOName(vo)]:
			if err := wire.RemoveSnapshot(s.snapshots(), xos.VOName(vo)); err != nil {
				s.Log.Error("taking a VO back", "vo", vo, "error", err)
			}
		}
	}
}

// publishVO writes a VO's snapshot.
func (s *Service) publishVO(vo xos.VOName) error {
	s.publish.Lock()
	defer s.publish.Unlock()
	users, groups := s.Accounts.VO(vo)
	own, ok := s.Accounts.Group(string(vo))
	if !ok {
		return xos.Errorf(xos.Internal, "VO %s has no group", vo)
	}
	// By the clock, so that it grows over restarts too.
	s.generations[vo] = max(s.generations[vo]+1, uint64(s.Now().UnixNano()))
	snap := wire.Snapshot{VO: vo, Generation: s.generations[vo], GID: own.ID}
	for _, g := range groups {
		snap.Groups = append(snap.Groups, wire.SnapshotGroup{Name: g.Name, GID: g.ID})
	}
	for _, u := range users {
		a, err := xos.ParseAccount(u.Name)
		if err != nil {
			return err
		}
		snap.Users = append(snap.Users, wire.SnapshotUser{Passwd: s.passwd(a, u.ID), Groups: s.gids(a, own.ID)})
	}
	return wire.WriteSnapshot(s.snapshots(), snap)
}

func (s *Service) passwd(a xos.Account, uid uint32) wire.Passwd {
	return wire.Passwd{Name: a.String(), UID: uid, GID: uid, Gecos: a.String(), Dir: s.home(a), Shell: s.cfg.Shell}
}

// gids gives the VO groups of an account: those of her newest certificate, and
// her VO's own in any case.
func (s *Service) gids(a xos.Account, own uint32) []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.people[a]; p != nil && len(p.groups) > 0 {
		var ids []uint32
		for _, g := range p.groups {
			ids = append(ids, g.GID)
		}
		return ids
	}
	ids := []uint32{own}
	for _, g := range s.learned[a] {
		if e, ok := s.Accounts.Group(string(a.VO) + ":" + string(g)); ok {
			ids = append(ids, e.ID)
		}
	}
	return ids
}
