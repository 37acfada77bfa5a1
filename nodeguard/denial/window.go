package denial

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
)

// Recorder is a log of decisions: *audit.Log.
type Recorder interface {
	Append(ctx context.Context, r audit.Record) error
}

// Names says what numbers mean.
type Names interface {
	// VO is "" for a number that is not known.
	VO(num uint32) xos.VOName
	Account(uid uint32) (xos.Account, bool)
	// Hook gives a hook's name and aim.
	Hook(id uint32) (name, aim string)
	// Executable is the path of a file that a process runs, or "" if that has
	// gone or runs another by now.
	Executable(pid uint32, file File) string
	// Job is that of a cgroup, or "".
	Job(cgroup uint64) xos.JobID
}

// Bounds of one window. What is beyond is counted, not named.
const (
	maxAtOnce = 50  // lines of new denials
	maxKinds  = 200 // kinds of denials that are told apart
)

// kind is what makes two denials the same for a reader.
type kind struct{ hook, vo, objectVO, uid, pid uint32 }

// Window gathers denials for a while. It is not safe for concurrent use.
type Window struct {
	history Recorder
	names   Names
	repeats map[kind]*repeat
	others  uint64
	lines   int
	lost    uint64 // as last told
}

type repeat struct {
	last  Denial
	count uint64 // beyond the one that has a line
}

// NewWindow makes an empty one. lost is how many denials the kernel had no room
// for until now.
func NewWindow(history Recorder, names Names, lost uint64) *Window {
	return &Window{history: history, names: names, repeats: map[kind]*repeat{}, lost: lost}
}

// Add takes a denial; it returns when a new one is on the disk.
func (w *Window) Add(ctx context.Context, d Denial) error {
	k := kind{d.Hook, d.VO, d.ObjectVO, d.UID, d.PID}
	if r := w.repeats[k]; r != nil {
		r.last = d
		r.count++
		return nil
	}
	if len(w.repeats) >= maxKinds {
		w.others++
		return nil
	}
	r := &repeat{last: d}
	w.repeats[k] = r
	if w.lines >= maxAtOnce {
		r.count++ // told when the window ends
		return nil
	}
	w.lines++
	return w.history.Append(ctx, w.record(d, 0))
}

// End tells what was repeated, and what the kernel had no room for, of which
// lost is the number until now; then the next window begins.
func (w *Window) End(ctx context.Context, lost uint64) error {
	var again []*repeat
	for _, r := range w.repeats {
		if r.count > 0 {
			again = append(again, r)
		}
	}
	slices.SortFunc(again, func(a, b *repeat) int { return cmp.Compare(b.count, a.count) })
	if len(again) > maxAtOnce {
		for _, r := range again[maxAtOnce:] {
			w.others += r.count
		}
		again = again[:maxAtOnce]
	}
	for _, r := range again {
		if err := w.history.Append(ctx, w.record(r.last, r.count)); err != nil {
			return err
		}
	}
	if w.others > 0 || lost != w.lost {
		err := w.history.Append(ctx, audit.Record{Actor: "kernel", Action: "isolation", Reason: "refusals beyond those named",
			Detail: map[string]string{"unnamed": strconv.FormatUint(w.others, 10), "lost": strconv.FormatUint(lost-w.lost, 10)}})
		if err != nil {
			return err
		}
	}
	w.repeats, w.others, w.lines, w.lost = map[kind]*repeat{}, 0, 0, lost
	return nil
}

// record puts a denial into words. count is how often it was repeated.
func (w *Window) record(d Denial, count uint64) audit.Record {
	hook, aim := w.names.Hook(d.Hook)
	r := audit.Record{Actor: "uid " + decimal(d.UID), Action: "isolation." + aim, VO: w.names.VO(d.VO),
		Subject: w.object(d), Reason: "the kernel's check " + hook + " keeps VOs apart",
		Detail: map[string]string{"rule": hook, "pid": decimal(d.PID), "command": d.Command}}
	if a, ok := w.names.Account(d.UID); ok {
		r.Actor, r.User = a.String(), a.User
	}
	if exe := w.names.Executable(d.PID, d.Executable); exe != "" {
		r.Detail["executable"] = exe
	} else if d.Executable.Inode != 0 {
		r.Detail["executable"] = number(d.Executable.Device, d.Executable.Inode)
	}
	if job := w.names.Job(d.Cgroup); job != "" {
		r.Detail["job"] = string(job)
	}
	if count > 0 {
		r.Detail["repeated"] = strconv.FormatUint(count, 10)
	}
	return r
}

// object says what was asked for.
func (w *Window) object(d Denial) string {
	_, aim := w.names.Hook(d.Hook)
	var b strings.Builder
	switch aim {
	case "signals", "debug", "scheduling":
		b.WriteString("process " + strconv.FormatUint(d.Object, 10))
	case "files", "exec", "guard":
		b.WriteString(number(d.Device, d.Object))
	case "sockets":
		b.WriteString("unix socket")
	case "ipc":
		b.WriteString("IPC object " + strconv.FormatUint(d.Object, 10))
	case "keys":
		b.WriteString("key " + strconv.FormatUint(d.Object, 10))
	default:
		return aim
	}
	if a, ok := w.names.Account(d.ObjectUID); ok {
		b.WriteString(" of " + a.String())
	} else {
		b.WriteString(" of uid " + decimal(d.ObjectUID))
		if vo := w.names.VO(d.ObjectVO); vo != "" {
			b.WriteString(" in VO " + string(vo))
		}
	}
	return b.String()
}

// number names a file by its numbers.
func number(device uint32, inode uint64) string {
	return "file " + decimal(device>>20) + ":" + decimal(device&(1<<20-1)) + " inode " + strconv.FormatUint(inode, 10)
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
