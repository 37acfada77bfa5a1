package userdb

import (
	"slices"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/wire"
)

// viewer is who asks: root, and so systemd-userdbd for whom it asks, sees every
// VO; a user of the grid her own; all others see nothing. What must not be seen
// is not there.
type viewer struct {
	uid       uint32
	snapshots string
}

func unknown() error { return xos.Errorf(xos.NotFound, "no such name or id") }

func isGrid(id uint32) bool { return id >= session.FirstID && id <= session.LastID }

// blind says that nothing needs to be looked at: this viewer sees none of it.
func (v viewer) blind() bool { return v.uid != 0 && !isGrid(v.uid) }

// open opens the VO's snapshot, if the viewer may see it. That a grid user may
// is the snapshot's own word: it has her uid.
func (v viewer) open(vo xos.VOName) (*wire.SnapshotFile, error) {
	s, err := wire.OpenSnapshot(v.snapshots, vo)
	if err != nil || v.uid == 0 {
		return s, err
	}
	r, err := s.Numbered(v.uid)
	if err == nil && r.User == nil {
		err = unknown()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// voOf gives the VO whose snapshot would have a user or group of that name, or
// "" for a name that is none of the grid's. systemd takes no name with a ':',
// so the groups within a VO, "physics:higgs", are not told of.
func voOf(name string) xos.VOName {
	if a, err := xos.ParseAccount(name); err == nil {
		return a.VO
	}
	if xos.ValidName(name) && !xos.ReservedName(name) {
		return xos.VOName(name)
	}
	return ""
}

// named finds a user or group, and the snapshot that has it: close that.
func (v viewer) named(name string) (wire.Record, *wire.SnapshotFile, error) {
	vo := voOf(name)
	if vo == "" || v.blind() {
		return wire.Record{}, nil, unknown()
	}
	s, err := v.open(vo)
	if err != nil {
		return wire.Record{}, nil, err
	}
	r, err := s.Named(name)
	if err != nil {
		s.Close()
		return wire.Record{}, nil, err
	}
	return r, s, nil
}

// numbered finds a user or a VO's group. No id is in two VOs; that one VO's
// snapshot is broken matters only if no other has the id.
func (v viewer) numbered(id uint32) (wire.Record, error) {
	if !isGrid(id) || v.blind() {
		return wire.Record{}, unknown()
	}
	vos, err := wire.SnapshotVOs(v.snapshots)
	if err != nil {
		return wire.Record{}, err
	}
	result := unknown()
	for _, vo := range vos {
		s, err := v.open(vo)
		if err == nil {
			var r wire.Record
			r, err = s.Numbered(id)
			s.Close()
			if err == nil {
				return r, nil
			}
		}
		if xos.KindOf(err) != xos.NotFound {
			result = err
		}
	}
	return wire.Record{}, result
}

// both finds by name, by id, or by both, which must then agree. is says whether
// a record is of the wanted kind.
func (v viewer) both(name *string, id *uint32, is func(wire.Record) bool) (wire.Record, error) {
	var byName, byID wire.Record
	var nameErr, idErr error
	if name != nil {
		var s *wire.SnapshotFile
		if byName, s, nameErr = v.named(*name); nameErr == nil {
			s.Close()
			if !is(byName) {
				byName, nameErr = wire.Record{}, unknown()
			}
		}
	}
	if id != nil {
		if byID, idErr = v.numbered(*id); idErr == nil && !is(byID) {
			byID, idErr = wire.Record{}, unknown()
		}
	}
	for _, err := range []error{nameErr, idErr} {
		if err != nil && xos.KindOf(err) != xos.NotFound {
			return wire.Record{}, err
		}
	}
	switch {
	case id == nil:
		return byName, nameErr
	case name == nil:
		return byID, idErr
	case nameErr != nil && idErr != nil:
		return wire.Record{}, nameErr
	case nameErr != nil || idErr != nil || byName.Name() != byID.Name():
		return wire.Record{}, xos.Errorf(xos.Conflict, "name and id are not one's")
	}
	return byName, nil
}

func (v viewer) userRecord(q question) ([]any, error) {
	r, err := v.both(q.user, q.uid, func(r wire.Record) bool { return r.User != nil })
	if err != nil {
		return nil, err
	}
	return []any{recordReply{Record: userOf(*r.User)}}, nil
}

func (v viewer) groupRecord(q question) ([]any, error) {
	// A user's own group is in the snapshot as the user.
	r, err := v.both(q.group, q.gid, func(r wire.Record) bool { return !strings.Contains(r.Name(), ":") })
	if err != nil {
		return nil, err
	}
	return []any{recordReply{Record: groupOf(r)}}, nil
}

// memberships gives a user's groups, a group's members, or whether the one is
// in the other. Nobody is listed in her own group.
func (v viewer) memberships(q question) ([]any, error) {
	name := q.user
	if name == nil {
		name = q.group
	}
	r, s, err := v.named(*name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var found []any
	switch {
	case q.user == nil && r.Group != nil:
		for _, m := range r.Group.Members {
			found = append(found, membership{m, r.Group.Name})
		}
	case q.user != nil && r.User != nil:
		for _, gid := range slices.Compact(slices.Sorted(slices.Values(r.User.Groups))) {
			g, err := s.Numbered(gid)
			if xos.KindOf(err) == xos.NotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			if g.Group == nil || strings.Contains(g.Name(), ":") || q.group != nil && g.Name() != *q.group {
				continue
			}
			found = append(found, membership{r.User.Name, g.Name()})
		}
	}
	return found, nil
}
