// Package isolation is what a virtual organisation (VO) chooses to share with
// others on the machines where its members are, and what a machine's site lets
// VOs share: the text of both, what follows from them for two VOs, and the
// numbers that the BPF programs decide by.
//
// Nothing is shared unless three agree: each of the two VOs names the other, and
// the site permits it. What is absent, malformed or too old isolates.
package isolation

import (
	"slices"
	"time"

	"github.com/xtreemos/xos"
)

// Aim is a way to reach others by which VOs are kept apart.
type Aim string

// Aims are all of them, in the order of enum xos_aim in bpf/isolation.h: an
// aim's place is its bit in a Mask.
var Aims = []Aim{"signals", "debug", "scheduling", "files", "exec", "sockets", "ipc", "keys", "network"}

// Mask is a set of aims, a bit each.
type Mask uint32

// Bit is the mask of one aim; 0 for what is none.
func (a Aim) Bit() Mask {
	i := slices.Index(Aims, a)
	if i < 0 {
		return 0
	}
	return 1 << i
}

// every aim.
var all = Mask(1)<<len(Aims) - 1

// Aims lists those in the set.
func (m Mask) Aims() (list []Aim) {
	for _, a := range Aims {
		if m&a.Bit() != 0 {
			list = append(list, a)
		}
	}
	return list
}

// Restriction is something that a VO's own processes may be forbidden.
type Restriction string

// Restrictions are all that can be forbidden by number, in the order of enum
// xos_surface in bpf/isolation.h after its first, bpf(), which all are forbidden.
var Restrictions = []Restriction{
	"perf",            // perf_event_open
	"user_namespaces", // making a user namespace
	"setuid",          // executing a program with a set-user-ID or set-group-ID bit
	"own_programs",    // executing a file that is not root's, memory and deleted files among them
	SocketLists,       // reading whose each socket of the machine is, and whom it speaks to
}

// SocketLists is forbidden to all VOs unless the site permits it: the kernel lists
// all sockets or none.
const SocketLists Restriction = "socket_lists"

// Liftable are the restrictions that hold unless a site permits otherwise.
var Liftable = []Restriction{SocketLists}

// Any, in a list of VOs, names all others.
const Any xos.VOName = "*"

// Class names devices by what they are for: a site says which a machine has.
type Class string

// Policy is what one VO chose. The zero value shares nothing, has no devices but
// those that everybody has, and forbids nothing of its own.
type Policy struct {
	// Share has, for an aim, the VOs that it is shared with if they do so too.
	Share map[Aim][]xos.VOName `json:"share,omitempty"`
	// Forbid is what the VO's own processes may not do.
	Forbid []Restriction `json:"forbid,omitempty"`
	// Devices are those that its processes may use, where the site has them.
	Devices []Class `json:"devices,omitempty"`
	// Ceilings bound what its jobs use of a machine together, where that is less
	// than the site allows.
	Ceilings Ceilings `json:"ceilings,omitzero"`
}

// Ceilings are amounts, or parts of what a machine has, as in node.toml; "" is
// no bound.
type Ceilings struct {
	CPUs      string `json:"cpus,omitempty"`
	Memory    string `json:"memory,omitempty"`
	Processes string `json:"processes,omitempty"`
	IO        string `json:"io,omitempty"`
}

// Strictest is what a VO has whose policy cannot be read: it may have been
// meant to forbid anything.
func Strictest() Policy { return Policy{Forbid: slices.Clone(Restrictions)} }

// names reports whether a policy names a VO for an aim, by name or as any.
func (p Policy) names(vo xos.VOName, aim Aim) bool {
	return slices.Contains(p.Share[aim], vo) || slices.Contains(p.Share[aim], Any)
}

// Site is what the owner of a machine permits. The zero value permits nothing.
type Site struct {
	// Share are the aims that VOs may share here.
	Share []Aim
	// Forbid is forbidden to all VOs here, and what is Liftable but not in Permit.
	Forbid []Restriction
	// Permit has what is Liftable and not forbidden here.
	Permit []Restriction
	// Devices has the paths of each class.
	Devices map[Class][]string
	// VOs have the policies of VOs whose administrators have set none.
	VOs map[xos.VOName]Policy
}

// VO is a VO with its policy, as one machine has to take it.
type VO struct {
	Name   xos.VOName
	Policy Policy
	// From says whose policy it is, and Why what is wrong with it if it is
	// Strictest; for people.
	From Origin
	Why  string
	// Until is when what it shares ends for lack of news; zero is never.
	Until time.Time
}

// Origin says who set a policy.
type Origin string

const (
	FromVO      Origin = "the VO"
	FromSite    Origin = "this machine's site"
	FromDefault Origin = "nobody: the default"
	Unreadable  Origin = "nobody: the VO's cannot be read"
)

// Take gives what a machine makes of a VO's text, "" where it has set none.
func (s Site) Take(name xos.VOName, text string, until time.Time) VO {
	vo := VO{Name: name, From: FromDefault, Until: until}
	if text != "" {
		p, err := Parse([]byte(text))
		if err != nil {
			vo.Policy, vo.From, vo.Why = Strictest(), Unreadable, err.Error()
			return vo
		}
		vo.Policy, vo.From = p, FromVO
		return vo
	}
	if p, ok := s.VOs[name]; ok {
		vo.Policy, vo.From = p, FromSite
	}
	return vo
}
