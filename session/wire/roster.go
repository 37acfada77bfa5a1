package wire

import (
	"slices"

	"github.com/xtreemos/xos"
)

// roster is a group with its members, as many as a message holds. Which ones a
// list has that was cut is not defined.
type roster struct {
	SnapshotGroup
	members []string
	size    int  // of the members' fields
	changed bool // since the base was written
}

// rosters are the groups of a VO by their gids.
type rosters map[uint32]*roster

// rosters gives the groups without their members, and refuses groups that are
// not the VO's.
func (w Whole) rosters() (rosters, error) {
	vo := string(w.VO)
	if !xos.ValidName(vo) || xos.ReservedName(vo) {
		return nil, xos.Errorf(xos.Invalid, "%.40q is no name for a VO", vo)
	}
	lists, own := rosters{}, false
	for _, g := range w.Groups {
		if !ValidGroup(g.Name) || g.Name != vo && (len(g.Name) < len(vo) || g.Name[:len(vo)+1] != vo+":") {
			return nil, xos.Errorf(xos.Invalid, "snapshot of %s: bad group %.80q", vo, g.Name)
		}
		if lists[g.GID] != nil {
			return nil, xos.Errorf(xos.Conflict, "snapshot of %s: %s (%d) is there twice", vo, g.Name, g.GID)
		}
		lists[g.GID] = &roster{SnapshotGroup: g}
		own = own || g.Name == vo && g.GID == w.GID
	}
	if !own {
		return nil, xos.Errorf(xos.Invalid, "snapshot of %s: its own group is not %d", vo, w.GID)
	}
	return lists, nil
}

// enroll enters the users into the lists of their groups.
func (w Whole) enroll(lists rosters) {
	for i := range w.Len {
		u := w.User(i)
		for _, gid := range u.Groups {
			if r := lists[gid]; r != nil {
				r.add(u.Name)
			}
		}
	}
}

// add appends a member who is not there yet, if there is room.
func (r *roster) add(name string) {
	const others = 256 // bytes of the other fields
	if others+r.size+4+len(name) > maxBody || len(r.members) == maxMembers {
		return
	}
	r.members = append(r.members, name)
	r.size += 4 + len(name)
	r.changed = true
}

// remove takes a member off, if she is there.
func (r *roster) remove(name string) {
	i := slices.Index(r.members, name)
	if i < 0 {
		return
	}
	r.members = slices.Delete(r.members, i, i+1)
	r.size -= 4 + len(name)
	r.changed = true
}

func (r *roster) group() Group { return Group{r.Name, r.GID, r.members} }

// move notes that a user who was in these groups is in those now.
func (l rosters) move(name string, from, to []uint32) {
	for _, gid := range from {
		if r := l[gid]; r != nil && !slices.Contains(to, gid) {
			r.remove(name)
		}
	}
	for _, gid := range to {
		if r := l[gid]; r != nil && !slices.Contains(from, gid) {
			r.add(name)
		}
	}
}
