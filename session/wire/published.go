package wire

import (
	"os"
	"slices"

	"github.com/xtreemos/xos"
)

// What makes a base worthwhile, and when what changed since belongs into it.
const (
	small     = 512     // users; with fewer, the head has all
	muchSince = 512     // changed users
	largeHead = 1 << 20 // bytes
	mostSince = 1 << 13 // changed users, after which a change is refused
)

// published is what a VO's snapshot says: a base, or none, and what its head
// says beyond.
type published struct {
	vo    xos.VOName
	gid   uint32
	based uint64        // the base's generation, or 0
	base  *SnapshotFile // in file, or nil
	file  *os.File
	lists rosters
	since map[string]change
	ids   map[uint32]string // live users of since
	size  int               // of the head
	// asked says that its renewal was asked for; then taking is what has changed
	// since that began, or nil.
	asked  bool
	taking map[string]*SnapshotUser
}

// change is what the head says of a user.
type change struct {
	user *SnapshotUser // nil: there is none of this name
	was  uint32        // the uid in the base, or 0
}

// known gives what the snapshot says of a name.
func (p *published) known(name string) (u *SnapshotUser, was uint32, err error) {
	if c, ok := p.since[name]; ok {
		return c.user, c.was, nil
	}
	if p.base == nil {
		return nil, 0, nil
	}
	x, err := p.base.Named(name)
	if xos.Is(err, xos.NotFound) || err == nil && x.User == nil {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	return x.User, x.User.UID, nil
}

// isFree refuses a user whose id is another's.
func (p *published) isFree(u *SnapshotUser) error {
	other := p.ids[u.UID]
	if r := p.lists[u.UID]; r != nil {
		other = r.Name
	}
	if other == "" && p.base != nil {
		x, err := p.base.Numbered(u.UID)
		if err == nil {
			if _, changed := p.since[x.Name()]; !changed {
				other = x.Name()
			}
		} else if !xos.Is(err, xos.NotFound) {
			return err
		}
	}
	if other != "" && other != u.Name {
		return xos.Errorf(xos.Conflict, "snapshot of %s: %d is %s and %s", p.vo, u.UID, other, u.Name)
	}
	return nil
}

// set makes the snapshot say this of a name; nil: nothing.
func (p *published) set(name string, u *SnapshotUser) error {
	before, was, err := p.known(name)
	if err != nil {
		return err
	}
	var from, to []uint32
	if u != nil {
		if err := u.check(p.vo); err != nil {
			return err
		}
		if u.Name != name {
			return xos.Errorf(xos.Invalid, "snapshot of %s: %s cannot be %s", p.vo, name, u.Name)
		}
		alone := newLayout(p.vo, 0, 1, 256) // what cannot be written must not get in
		alone.user(u)
		if _, err := alone.finish(0); err != nil {
			return err
		}
		if err := p.isFree(u); err != nil {
			return err
		}
		to = u.Groups
	}
	if before != nil {
		from = before.Groups
		if p.ids[before.UID] == name {
			delete(p.ids, before.UID)
		}
	}
	p.lists.move(name, from, to)
	switch {
	case u != nil:
		p.ids[u.UID] = name
		p.since[name] = change{u, was}
	case was != 0:
		p.since[name] = change{nil, was}
	default:
		delete(p.since, name)
	}
	if p.taking != nil {
		p.taking[name] = u
	}
	return nil
}

// hasGroups says whether all groups of a user are there.
func (p *published) hasGroups(u *SnapshotUser) bool {
	return u == nil || !slices.ContainsFunc(u.Groups, func(gid uint32) bool { return p.lists[gid] == nil })
}

// repeat makes the changes of another snapshot here.
func (p *published) repeat(changes map[string]*SnapshotUser) error {
	for name := range changes { // an id may have gone from one to another
		if err := p.set(name, nil); err != nil {
			return err
		}
	}
	for name, u := range changes {
		if u != nil {
			if err := p.set(name, u); err != nil {
				return err
			}
		}
	}
	return nil
}

// head lays the head out.
func (p *published) head(generation uint64) ([]byte, error) {
	names := make([]string, 0, len(p.since))
	for name := range p.since {
		names = append(names, name)
	}
	slices.Sort(names)
	var gids []uint32
	for gid, r := range p.lists {
		if p.base == nil || r.changed {
			gids = append(gids, gid)
		}
	}
	slices.Sort(gids)
	l := newLayout(p.vo, p.based, 2*len(names)+len(gids), max(p.size, 4096))
	for _, name := range names {
		c := p.since[name]
		if c.user != nil {
			l.user(c.user)
		}
		_, taken := p.ids[c.was]
		if byID := c.was != 0 && !taken; c.user == nil || byID {
			l.gone(name, c.was, c.user == nil, byID)
		}
	}
	for _, gid := range gids {
		l.group(p.lists[gid].group())
	}
	return l.finish(generation)
}

// isDue says whether it is worthwhile to write the base anew.
func (p *published) isDue() bool {
	if p.base == nil {
		return len(p.since) > 2*small
	}
	return len(p.since) > muchSince || p.size > largeHead
}

// drop removes the base.
func (p *published) drop() {
	if p.file != nil {
		os.Remove(p.file.Name())
	}
	p.close()
}

func (p *published) close() {
	if p.file != nil {
		p.file.Close()
	}
}
