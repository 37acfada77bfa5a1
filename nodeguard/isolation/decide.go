package isolation

import (
	"fmt"
	"slices"
	"time"
)

// Ruling is what follows for two VOs and one aim, and which rule of which side
// decided.
type Ruling struct {
	Shared bool
	Why    string
}

// Decide says whether two VOs share an aim at a time. It is the meaning of
// policies, in plain words: Compile must come to the same.
func (s Site) Decide(a, b VO, aim Aim, now time.Time) Ruling {
	no := func(format string, args ...any) Ruling { return Ruling{Why: fmt.Sprintf(format, args...)} }
	switch {
	case aim.Bit() == 0:
		return no("%q is no aim", aim)
	case a.Name == b.Name:
		return Ruling{Shared: true, Why: "it is one VO"}
	case !slices.Contains(s.Share, aim):
		return no("this machine's site does not permit to share %s", aim)
	}
	for _, x := range []struct{ vo, with VO }{{a, b}, {b, a}} {
		switch {
		case !x.vo.Policy.names(x.with.Name, aim):
			return no("%s does not share %s with %s (set by %s)", x.vo.Name, aim, x.with.Name, x.vo.From)
		case !x.vo.Until.IsZero() && !now.Before(x.vo.Until):
			return no("the news of %s are too old", x.vo.Name)
		}
	}
	return Ruling{Shared: true, Why: fmt.Sprintf("%s and %s share %s with each other, and this machine's site permits it", a.Name, b.Name, aim)}
}

// Forbidden says what a VO's processes may not do here.
func (s Site) Forbidden(vo VO) []Restriction {
	list := append(slices.Clone(s.Forbid), vo.Policy.Forbid...)
	for _, r := range Liftable {
		if !slices.Contains(s.Permit, r) {
			list = append(list, r)
		}
	}
	return sorted(list)
}

// Granted gives the classes of devices that a VO has here.
func (s Site) Granted(vo VO) []Class {
	var list []Class
	for _, c := range vo.Policy.Devices {
		if _, ok := s.Devices[c]; ok {
			list = append(list, c)
		}
	}
	return list
}
