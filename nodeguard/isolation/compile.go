package isolation

import (
	"maps"
	"slices"
	"time"

	"github.com/xtreemos/xos"
)

// Table is policies as numbers, for programs that decide in constant time: of
// two VOs with a Pair that says what they share, else what both share with any.
type Table struct {
	// Default is what holds for a VO that has no entry: it shares nothing.
	Default Entry
	VOs     map[uint32]Entry
	// Pairs are those of which one names the other; the lower number first.
	Pairs map[[2]uint32]Pair
}

// Entry is one VO's.
type Entry struct {
	// Any are the aims that it shares with whoever does so too, until Until.
	Any     Mask
	Until   time.Time // zero: no end
	Forbid  uint32    // a bit for each of Restrictions
	Devices []Class
}

// Pair is what two VOs share.
type Pair struct {
	Aims  Mask
	Until time.Time
}

// MaxEntries bounds a Table: what is more could not be held, and is refused.
const MaxEntries = 1 << 20

// Compile turns policies into a table, with entries for those VOs only that
// chose something. number gives a VO's.
func (s Site) Compile(vos []VO, number func(xos.VOName) (uint32, error)) (Table, error) {
	t := Table{Default: Entry{Forbid: bits(s.Forbidden(VO{}))}, VOs: map[uint32]Entry{}, Pairs: map[[2]uint32]Pair{}}
	permitted := mask(s.Share)
	byName, numbers := make(map[xos.VOName]VO, len(vos)), map[xos.VOName]uint32{}
	asked := number
	number = func(name xos.VOName) (uint32, error) { // of one many times
		num, ok := numbers[name]
		if ok {
			return num, nil
		}
		num, err := asked(name)
		if err == nil {
			numbers[name] = num
		}
		return num, err
	}
	for _, vo := range vos {
		byName[vo.Name] = vo
		e := Entry{Any: vo.Policy.to(Any) & permitted, Forbid: bits(s.Forbidden(vo)), Devices: s.Granted(vo)}
		if e.Any == 0 && e.Forbid == t.Default.Forbid && len(e.Devices) == 0 {
			continue
		}
		if e.Any != 0 {
			e.Until = vo.Until
		}
		num, err := number(vo.Name)
		if err != nil {
			return Table{}, err
		}
		t.VOs[num] = e
	}
	for _, a := range vos {
		for _, name := range a.Policy.Named() {
			b, ok := byName[name]
			aims := a.Policy.to(b.Name) & b.Policy.to(a.Name) & permitted
			if !ok || name == a.Name || aims == 0 {
				continue // what both share with any is not more
			}
			x, err := number(a.Name)
			if err != nil {
				return Table{}, err
			}
			y, err := number(name)
			if err != nil {
				return Table{}, err
			}
			t.Pairs[[2]uint32{min(x, y), max(x, y)}] = Pair{Aims: aims, Until: earlier(a.Until, b.Until)}
		}
		if n := len(t.Pairs) + len(t.VOs); n > MaxEntries {
			return Table{}, xos.Errorf(xos.TooLarge, "the VOs' policies of isolation name each other more than %d times", MaxEntries)
		}
	}
	return t, nil
}

// Shares is the answer of a table: the same decision as in bpf/isolation.h.
func (t Table) Shares(a, b uint32, aim Aim, now time.Time) bool {
	if p, ok := t.Pairs[[2]uint32{min(a, b), max(a, b)}]; ok {
		return p.Aims&aim.Bit() != 0 && holds(p.Until, now)
	}
	x, y := t.VOs[a], t.VOs[b]
	return x.Any&y.Any&aim.Bit() != 0 && holds(x.Until, now) && holds(y.Until, now)
}

func holds(until, now time.Time) bool { return until.IsZero() || now.Before(until) }

// earlier of two ends, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// to gives the aims that a policy shares with a VO, or with Any.
func (p Policy) to(vo xos.VOName) (m Mask) {
	for aim := range p.Share {
		if p.names(vo, aim) {
			m |= aim.Bit()
		}
	}
	return m
}

// Named gives the VOs that a policy names, but for Any.
func (p Policy) Named() []xos.VOName {
	found := map[xos.VOName]bool{}
	for _, names := range p.Share {
		for _, name := range names {
			found[name] = true
		}
	}
	delete(found, Any)
	return slices.Sorted(maps.Keys(found))
}

func mask(aims []Aim) (m Mask) {
	for _, a := range aims {
		m |= a.Bit()
	}
	return m
}

func bits(list []Restriction) (n uint32) {
	for _, r := range list {
		if i := slices.Index(Restrictions, r); i >= 0 {
			n |= 1 << i
		}
	}
	return n
}
