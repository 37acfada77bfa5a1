package guard

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard/denial"
)

// Recorder is a log of decisions: *audit.Log.
type Recorder = denial.Recorder

// AccountOf names whose a uid is, where somebody has it.
type AccountOf func(uid uint32) (xos.Account, bool)

// window is how long repetitions of a denial are gathered.
const window = 5 * time.Second

// recordDenials writes what the programs refused into history. A refusal never
// waits for it: what is not told is counted, for its VO.
func (g *Guard) recordDenials(ctx context.Context, history Recorder, accountOf AccountOf) error {
	r, err := ringbuf.NewReader(g.network.objs.Refusals)
	if err != nil {
		return xos.Errorf(xos.Internal, "reading what was refused: %w", err)
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	lost, err := g.network.inLog.read()
	if err != nil {
		return err
	}
	w := denial.NewWindow(journal{history, g.log}, words{g.labels, accountOf}, lost)
	end := time.Now().Add(window)
	for {
		r.SetDeadline(end)
		rec, err := r.Read()
		if err == nil {
			d, err := denial.Decode(rec.RawSample)
			if err == nil {
				err = w.Add(context.WithoutCancel(ctx), d)
			}
			if err != nil {
				g.log.Error("a refusal is not in the log", "error", err)
			}
		}
		over := errors.Is(err, os.ErrClosed)
		if err != nil && !over && !errors.Is(err, os.ErrDeadlineExceeded) {
			return xos.Errorf(xos.Internal, "reading what was refused: %w", err)
		}
		if over || !time.Now().Before(end) {
			end = time.Now().Add(window)
			now, err := g.network.lost()
			if err == nil {
				err = w.End(context.WithoutCancel(ctx), now)
			}
			if err == nil {
				err = g.network.inLog.note(lost, now)
				lost = now
			}
			if err != nil {
				g.log.Error("refusals are not in the log", "error", err)
			}
		}
		if over {
			return nil
		}
	}
}

// count reads how often a hook denied.
func (l *lsm) count(what uint32) (n uint64, err error) {
	if err := l.maps[bpf.LsmMapLsmCounts].Lookup(what, &n); err != nil {
		return 0, xos.Errorf(xos.Unavailable, "reading count %d of the LSM programs: %w", what, err)
	}
	return n, nil
}

// journal tells the system's journal too what is in the log of decisions.
type journal struct {
	history Recorder
	log     *slog.Logger
}

func (j journal) Append(ctx context.Context, r audit.Record) error {
	args := []any{"action", r.Action, "actor", r.Actor, "vo", r.VO, "subject", r.Subject, "reason", r.Reason}
	for _, key := range slices.Sorted(maps.Keys(r.Detail)) {
		args = append(args, key, r.Detail[key])
	}
	j.log.Warn("the kernel refused", args...)
	return j.history.Append(ctx, r)
}

// words is what numbers in a denial mean on this machine.
type words struct {
	labels    *labels
	accountOf AccountOf
}

func (w words) VO(num uint32) xos.VOName { return w.labels.names.vo(num) }

func (w words) Account(uid uint32) (xos.Account, bool) {
	if a, ok := w.labels.account(uid); ok || w.accountOf == nil {
		return a, ok
	}
	return w.accountOf(uid)
}

func (w words) Hook(id uint32) (name, aim string) {
	for _, h := range hooks {
		if uint32(h.id) == id {
			return h.name, h.aim
		}
	}
	if p, ok := programs[bpf.VonetXosProgram(id)]; ok {
		return p.name, p.aim
	}
	return "?", "?"
}

func (w words) Executable(pid uint32, file denial.File) string {
	path := "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/exe"
	exe, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Ino != file.Inode || unix.Major(st.Dev) != file.Device>>20 || unix.Minor(st.Dev) != file.Device&(1<<20-1) {
		return ""
	}
	return exe
}

func (w words) Job(cgroup uint64) xos.JobID { return w.labels.jobOf(cgroup) }
