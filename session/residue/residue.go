// Package residue looks for what is left of local ids on this machine: of a
// uid and the gid of the same number. It is what stands between an id's
// quarantine and its next holder, so it errs on one side only: what could not
// be looked at counts as found.
//
// The kernel's state - processes, open files, namespaces, inter-process
// communication, keyrings, mounts, cgroups - is looked at before the files and
// again after them: an id that had no process at either time cannot have made
// a file behind the walk's back. Files are walked once for all ids of a search,
// at idle priority and a bounded rate, on every local file system that any
// process of the machine has mounted.
package residue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/xtreemos/xos"
)

// Config says where to look; empty fields mean this machine.
type Config struct {
	// Run and State are this service's own directories, Homes that of homes.
	Run, State, Homes string
	// Rate bounds the walk, in files a second; 0: 20000. Negative: in haste,
	// with no bound and no low priority.
	Rate int
	// Progress is told now and then how many files were walked; may be nil.
	Progress func(files int)
}

// Subject is an id to look for, as uid and as gid, and the name it has.
type Subject struct {
	ID   uint32
	Name string // "alice@physics"
	// Sub is the first of SubIDs subordinate ids, at a multiple of these; 0:
	// none. What is left of one is a trace of ID.
	Sub uint32
}

// SubIDs is how many subordinate ids go together.
const SubIDs = 1 << 16

// Kind is what kind of thing is looked at.
type Kind string

// Kinds, in the order in which they are looked at.
const (
	Process   Kind = "process"       // any of its uids, gids or groups, of any thread
	Namespace Kind = "namespace"     // a user namespace owned by it or mapping to it
	OpenFile  Kind = "open file"     // held by any process: deleted files, memfds, sockets, pipes
	Lock      Kind = "lock"          // held by a process that has it
	SysV      Kind = "sysv ipc"      // shared memory, semaphores, message queues
	MQueue    Kind = "posix mqueue"  // in any IPC namespace
	Keyring   Kind = "keyring"       // of the kernel
	Cgroup    Kind = "cgroup"        // named after it or handed over to it
	Mount     Kind = "mount"         // of its home, or made by it or for it
	Login     Kind = "login record"  // lastlog, utmp
	Cron      Kind = "crontab"       // by owner or name
	At        Kind = "at job"        // by owner, name or content
	Systemd   Kind = "systemd"       // linger, units, logind's state
	Etc       Kind = "configuration" // files in /etc that grant by name or id
	Own       Kind = "xtreemos"      // this service's own sessions, credentials, mounts, jobs
	File      Kind = "file"          // owner, group, ACL entry, file capability
)

// Kinds gives all of them.
func Kinds() []Kind {
	return []Kind{Process, Namespace, OpenFile, Lock, SysV, MQueue, Keyring, Cgroup, Mount, Login, Cron, At, Systemd, Etc, Own, File}
}

// Advice says what an administrator can do about a finding of a kind.
func (k Kind) Advice() string {
	switch k {
	case Process, Lock:
		return "end the process: kill PID"
	case Namespace, OpenFile:
		return "end or restart the process that holds it"
	case SysV:
		return "remove it: ipcrm"
	case MQueue:
		return "remove it: mount -t mqueue none DIR in that IPC namespace, then rm"
	case Keyring:
		return "it goes with the next sweep once no process has the uid, else with the next boot"
	case Cgroup:
		return "stop what uses it: systemctl stop user-UID.slice"
	case Mount:
		return "unmount it: umount PATH"
	case Login:
		return "lastlog's entry goes with the next sweep; a login that is recorded in utmp must end"
	case Cron:
		return "remove it: crontab -r -u USER, or rm"
	case At:
		return "remove it: atrm JOB, or rm"
	case Systemd:
		return "loginctl disable-linger USER; remove the unit or drop-in"
	case Etc:
		return "take the line out"
	case Own:
		return "xos session list, xos job list; it ends with the session, mount or job"
	}
	return "keep what is wanted under another owner (chown, setfacl -x), remove the rest"
}

// Finding is one trace of an id.
type Finding struct {
	ID    uint32 `json:"id"`
	Kind  Kind   `json:"kind"`
	Where string `json:"where"` // a path, a process, an IPC id
	Why   string `json:"why"`   // "owner", "effective uid", "ACL entry of a group"
}

// Look is what was looked at of one kind.
type Look struct {
	Kind  Kind `json:"kind"`
	Seen  int  `json:"seen"`  // things
	Found int  `json:"found"` // of all ids together
	// Blind are things that could not be looked at: nothing is proven then.
	// Skipped are those that need not be, with the reason.
	Blind   []string `json:"blind,omitempty"`
	Skipped []string `json:"skipped,omitempty"`
}

// Report is the outcome of a search.
type Report struct {
	Subjects []Subject `json:"subjects"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Looks    []Look    `json:"looks"`
	// Findings are at most findingsKept of each id and kind; Counts has all.
	Findings []Finding      `json:"findings"`
	Counts   map[uint32]int `json:"counts"`
}

const (
	findingsKept = 20
	blindKept    = 10
)

// Blind gives what could not be looked at, of all kinds.
func (r Report) Blind() []string {
	var all []string
	for _, l := range r.Looks {
		for _, b := range l.Blind {
			all = append(all, string(l.Kind)+": "+b)
		}
	}
	return all
}

// Clean reports whether it is proven that nothing is left of an id.
func (r Report) Clean(id uint32) bool {
	searched := slices.ContainsFunc(r.Subjects, func(s Subject) bool { return s.ID == id })
	return searched && !r.Ended.IsZero() && len(r.Looks) == len(Kinds()) && r.Counts[id] == 0 && len(r.Blind()) == 0
}

// Of gives the findings of one id.
func (r Report) Of(id uint32) []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.ID == id {
			out = append(out, f)
		}
	}
	return out
}

// search is a search under way, of one goroutine at a time.
type search struct {
	cfg   Config
	ids   map[uint32]bool
	subs  map[uint32]uint32 // ids by the first of their subordinate ones
	names map[string]uint32
	looks map[Kind]*Look
	seen  map[Finding]bool
	kept  map[Finding]int // by id and kind
	out   Report
}

// Search looks for the subjects, at least one. It takes as long as walking all
// files takes; an error is the context's.
func Search(ctx context.Context, cfg Config, subjects []Subject) (Report, error) {
	s := &search{cfg: cfg, ids: map[uint32]bool{}, subs: map[uint32]uint32{}, names: map[string]uint32{}, looks: map[Kind]*Look{}, seen: map[Finding]bool{}, kept: map[Finding]int{}}
	if len(subjects) == 0 {
		return Report{}, xos.Errorf(xos.Invalid, "a search for no id")
	}
	for _, sub := range subjects {
		if sub.ID < 1000 || sub.Name == "" {
			return Report{}, xos.Errorf(xos.Invalid, "%d %q is none of ours to look for", sub.ID, sub.Name)
		}
		if sub.Sub%SubIDs != 0 {
			return Report{}, xos.Errorf(xos.Invalid, "subordinate ids cannot begin at %d", sub.Sub)
		}
		s.ids[sub.ID], s.names[sub.Name] = true, sub.ID
		if sub.Sub != 0 {
			s.subs[sub.Sub] = sub.ID
		}
	}
	for _, k := range Kinds() {
		s.looks[k] = &Look{Kind: k}
	}
	s.out = Report{Subjects: slices.Clone(subjects), Began: time.Now().UTC(), Counts: map[uint32]int{}}
	for _, look := range []func(context.Context){s.kernel, s.records, s.files, s.again} {
		if look(ctx); ctx.Err() != nil {
			return Report{}, ctx.Err()
		}
	}
	s.out.Ended = time.Now().UTC()
	for _, k := range Kinds() {
		s.out.Looks = append(s.out.Looks, *s.looks[k])
	}
	slices.SortStableFunc(s.out.Findings, func(a, b Finding) int { return cmp.Compare(a.ID, b.ID) })
	return s.out, nil
}

// kernel looks at what lives in the kernel.
func (s *search) kernel(ctx context.Context) {
	holders := s.processes(ctx)
	s.locks(holders)
	s.ipc(ctx)
	s.keyrings()
	s.cgroups()
	s.mounts()
}

// again looks at the kernel's state anew; what was seen is counted once.
func (s *search) again(ctx context.Context) {
	before := map[Kind]int{}
	for k, l := range s.looks {
		before[k] = l.Seen
		l.Seen = 0
	}
	s.kernel(ctx)
	s.records(ctx)
	for k, l := range s.looks {
		l.Seen = max(l.Seen, before[k])
	}
}

func (s *search) saw(k Kind) { s.looks[k].Seen++ }

func (s *search) found(id uint32, k Kind, where, why string) {
	f := Finding{id, k, where, why}
	if s.seen[f] {
		return
	}
	group := Finding{ID: id, Kind: k}
	if s.kept[group] < 100*findingsKept { // bounds memory, not the count
		s.seen[f] = true
	}
	s.looks[k].Found++
	s.out.Counts[id]++
	if s.kept[group]++; s.kept[group] <= findingsKept {
		s.out.Findings = append(s.out.Findings, f)
	}
}

// blind notes what could not be looked at.
func (s *search) blind(k Kind, what string, err error) {
	s.note(&s.looks[k].Blind, what+": "+err.Error())
}

func (s *search) skip(k Kind, what, why string) { s.note(&s.looks[k].Skipped, what+": "+why) }

func (s *search) note(list *[]string, text string) {
	if len(*list) < blindKept && !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// owned notes a thing that is an id's by owner or group.
func (s *search) owned(k Kind, where string, uid, gid uint32) {
	if id, ok := s.whose(uid); ok {
		s.found(id, k, where, as(uid, id, "owner"))
	}
	if id, ok := s.whose(gid); ok {
		s.found(id, k, where, as(gid, id, "group"))
	}
}

// whose gives the id that is looked for and to which this one belongs.
func (s *search) whose(id uint32) (uint32, bool) {
	if s.ids[id] {
		return id, true
	}
	owner, ok := s.subs[id&^(SubIDs-1)]
	return owner, ok
}

// as says as what an id was found that belongs to another.
func as(id, owner uint32, why string) string {
	if id == owner {
		return why
	}
	return fmt.Sprintf("%s (subordinate id %d)", why, id)
}
