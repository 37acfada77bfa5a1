package account

import (
	"cmp"
	"slices"
	"strings"

	"github.com/xtreemos/xos"
)

// Holder is a name and its id.
type Holder struct {
	Name string
	ID   uint32
}

func byID(a, b Holder) int { return cmp.Compare(a.ID, b.ID) }

// VO gives the durable accounts, of which there may be very many, and groups of
// one VO, sorted by id.
func (m *Map) VO(vo xos.VOName) (users, groups []Holder) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rolls[vo]; r != nil {
		users = r.list()
	}
	for name, r := range m.groups {
		if v, _, _ := strings.Cut(name, ":"); v == string(vo) {
			groups = append(groups, Holder{name, r.ID})
		}
	}
	slices.SortFunc(groups, byID)
	return users, groups
}

// roll is the durable accounts of one VO. It is what the map of all users says
// too, but that is slow to go through.
type roll struct {
	sorted []Holder // by id
	fresh  []Holder // later ones
}

// roll gives that of an account's VO.
func (m *Map) roll(account string) *roll {
	_, vo, _ := strings.Cut(account, "@")
	r := m.rolls[xos.VOName(vo)]
	if r == nil {
		r = new(roll)
		m.rolls[xos.VOName(vo)] = r
	}
	return r
}

// enter notes an account that was not there.
func (r *roll) enter(h Holder) { r.fresh = append(r.fresh, h) }

// strike takes an account off.
func (r *roll) strike(h Holder) {
	r.sort()
	if i, ok := slices.BinarySearchFunc(r.sorted, h, byID); ok {
		r.sorted = slices.Delete(r.sorted, i, i+1)
	}
}

// list gives a copy, sorted.
func (r *roll) list() []Holder {
	r.sort()
	return slices.Clone(r.sorted)
}

// sort merges what is fresh, which is mostly little.
func (r *roll) sort() {
	if len(r.fresh) == 0 {
		return
	}
	slices.SortFunc(r.fresh, byID)
	old := r.sorted
	all := slices.Grow(r.sorted, len(r.fresh))[:len(old)+len(r.fresh)]
	i, j := len(old)-1, len(r.fresh)-1
	for k := len(all) - 1; j >= 0; k-- { // from the end, so that nothing is overwritten
		if i >= 0 && old[i].ID > r.fresh[j].ID {
			all[k] = old[i]
			i--
		} else {
			all[k] = r.fresh[j]
			j--
		}
	}
	r.sorted, r.fresh = all, nil
}
