// Package usage keeps and adds up what jobs and sessions used, for those who pay
// for it: the records (UsageRecord of api/xos/v1), a machine's own ledger of them,
// from which the core is told, and sums by VO and member.
//
// A record belongs to a job and the machine it ran on, or to a stay: an account's
// sessions on a machine, whose figures the kernel keeps together, from the first
// login until none of their processes is left. It is written at the start, again
// meanwhile, and finally at the end; each time in the place of the one before, so
// that what is sent twice counts once.
package usage

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard"
)

// figures are the names by which a record says what was not counted.
var figures = []string{"cpu", "memory", "disk", "net", "execs", "opens", "refused"}

// MaxRecord bounds a record, in bytes.
const MaxRecord = 4 << 10

// maxText bounds the words that a job's user chose.
const maxText = 256

// skew is how far a machine's clock may be ahead.
const skew = 10 * time.Minute

// Of begins a record: nothing is counted yet. job says what it was submitted
// as; its Started may be unknown.
func Of(job *xosv1.Job, node xos.NodeID) *xosv1.UsageRecord {
	r := &xosv1.UsageRecord{Job: job.Id, Account: job.Account, Credential: job.Credential, Node: string(node), Name: short(job.Spec.GetName()),
		Submitted: job.Submitted, Started: job.Started, Until: job.Started, Uncounted: slices.Clone(figures)}
	if argv := job.Spec.GetArgv(); len(argv) > 0 {
		r.Executable = short(argv[0])
	}
	return r
}

// short cuts what is longer than a record keeps, not within a rune.
func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	cut := 0
	for i := range s {
		if i > maxText {
			break
		}
		cut = i
	}
	return s[:cut]
}

// Count writes what a machine counted into a record: what its kernel says, and
// what the job's supervisor saw, of whose figures the greater is right.
func Count(r *xosv1.UsageRecord, u nodeguard.Used, seen aem.Usage) {
	without := slices.Clone(u.Uncounted)
	counted := func(figure string) {
		without = slices.DeleteFunc(without, func(f string) bool { return f == figure })
	}
	r.CpuUserMicros, r.CpuSystemMicros = u.CPUUser.Microseconds(), u.CPUSystem.Microseconds()
	if seen.CPU > u.CPUUser+u.CPUSystem {
		r.CpuUserMicros, r.CpuSystemMicros = seen.CPUUser.Microseconds(), seen.CPUSystem.Microseconds()
		counted("cpu")
	}
	r.MemoryPeakBytes = max(u.MemoryPeak, seen.Peak)
	if seen.Peak > 0 {
		counted("memory")
	}
	r.ReadBytes, r.WrittenBytes = int64(u.Read), int64(u.Written)
	if seen.Disk { // as the disks' controller counted it, whose cgroup is gone
		r.ReadBytes, r.WrittenBytes = seen.Read, seen.Written
		counted("disk")
	}
	r.ReceivedBytes, r.SentBytes = int64(u.NetIn), int64(u.NetOut)
	r.Executions, r.Opens, r.Refusals = int64(u.Execs), int64(u.Opens), int64(u.Refused)
	r.Uncounted = without
}

// Unknown is what is known of a job's use where the kernel cannot be asked.
func Unknown() nodeguard.Used { return nodeguard.Used{Uncounted: slices.Clone(figures)} }

// stayPrefix begins the id of a stay: no job's begins so.
const stayPrefix = "stay:"

// ID is the job's, or the stay's; no stay has a job's.
func ID(r *xosv1.UsageRecord) string {
	if r.GetStay() != "" {
		return r.Stay
	}
	return r.GetJob()
}

// validID reports whether a record's id is safe as the name of a file.
func validID(id string) bool {
	if rest, ok := strings.CutPrefix(id, stayPrefix); ok {
		return len(rest) == 32 && strings.Trim(rest, "0123456789abcdef") == ""
	}
	return aem.ValidJobID(xos.JobID(id))
}

// Check refuses what cannot be a record.
func Check(r *xosv1.UsageRecord, now time.Time) error {
	id := ID(r)
	switch {
	case r.GetJob() != "" && r.GetStay() != "" || strings.HasPrefix(id, stayPrefix) != (r.GetStay() != "") || !validID(id):
		return xos.Errorf(xos.Invalid, "%.80q is no id of a job, or of a stay", id)
	case r.Logins < 0 || r.Logins > maxFigure:
		return xos.Errorf(xos.Invalid, "%s cannot have %d logins", id, r.Logins)
	case proto.Size(r) > MaxRecord:
		return xos.Errorf(xos.TooLarge, "what %s used takes more than %d bytes to say", id, MaxRecord)
	case !xos.ValidName(r.Node):
		return xos.Errorf(xos.Invalid, "%.80q is no node", r.Node)
	case r.Started.CheckValid() != nil || r.Until.CheckValid() != nil || r.Submitted.CheckValid() != nil:
		return xos.Errorf(xos.Invalid, "the record of %s does not say when it was submitted, started and ended", id)
	case r.Until.AsTime().Before(r.Started.AsTime()) || r.Until.AsTime().After(now.Add(skew)) || r.Started.AsTime().Unix() < 0:
		return xos.Errorf(xos.Invalid, "%s cannot have run from %v to %v", id, r.Started.AsTime(), r.Until.AsTime())
	}
	if _, err := xos.ParseAccount(r.Account); err != nil {
		return err
	}
	for _, n := range []int64{r.CpuUserMicros, r.CpuSystemMicros, r.MemoryPeakBytes, r.ReadBytes, r.WrittenBytes, r.ReceivedBytes, r.SentBytes, r.Executions, r.Opens, r.Refusals} {
		if n < 0 || n > maxFigure {
			return xos.Errorf(xos.Invalid, "%s cannot have used %d", id, n)
		}
	}
	for i, f := range r.Uncounted {
		if !slices.Contains(figures, f) || slices.Contains(r.Uncounted[:i], f) {
			return xos.Errorf(xos.Invalid, "a record has no figure %.20q, or names it twice", f)
		}
	}
	return nil
}

// maxFigure is more than one job or stay can use, and leaves room to add up thousands.
const maxFigure = 1 << 56

// Before reports whether a is of an earlier time than b; a final record is
// later than all others.
func Before(a, b *xosv1.UsageRecord) bool {
	if a.Final != b.Final {
		return b.Final
	}
	return a.Until.AsTime().Before(b.Until.AsTime())
}
