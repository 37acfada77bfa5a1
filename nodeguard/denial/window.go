package denial

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/xtreemos/xos/infra/audit"
)

// Recorder is a log of decisions: *audit.Log.
type Recorder interface {
	Append(ctx context.Context, r audit.Record) error
}

// Bounds of one window: of each VO, and of all together. What is beyond is
// counted for its VO, not named. A VO's first line is always told, and one of
// what was not named.
const (
	maxAtOnce = 25  // lines of a VO's new denials, and again of those repeated
	maxKinds  = 100 // kinds of a VO's denials that are told apart
	maxLines  = 200 // lines of all VOs' new denials, and again of those repeated
)

// kind is what makes two denials the same for a reader.
type kind struct {
	hook, objectVO, uid, pid uint32
	endpoint                 Endpoint
	device                   uint32 // that was asked for
}

// Window gathers denials for a while. It is not safe for concurrent use.
type Window struct {
	history Recorder
	names   Names
	vos     map[uint32]*ofVO
	lines   int
	lost    map[uint32]uint64 // as last told
}

// ofVO is what a VO's processes were refused in a window.
type ofVO struct {
	repeats map[kind]*repeat
	lines   int
	others  uint64
}

type repeat struct {
	last  Denial
	count uint64 // beyond the one that has a line
}

// NewWindow makes an empty one. lost is how many denials of each VO, by number,
// the kernel has not told until now.
func NewWindow(history Recorder, names Names, lost map[uint32]uint64) *Window {
	return &Window{history: history, names: names, vos: map[uint32]*ofVO{}, lost: maps.Clone(lost)}
}

// Add takes a denial; it returns when a new one is on the disk.
func (w *Window) Add(ctx context.Context, d Denial) error {
	vo := w.of(d.VO)
	k := kind{hook: d.Hook, objectVO: d.ObjectVO, uid: d.UID, pid: d.PID, endpoint: d.Endpoint}
	if isProgram(d.Hook) {
		k.device = d.Device
	}
	if r := vo.repeats[k]; r != nil {
		r.last = d
		r.count++
		return nil
	}
	if len(vo.repeats) >= maxKinds {
		vo.others++
		return nil
	}
	r := &repeat{last: d}
	vo.repeats[k] = r
	if vo.lines >= maxAtOnce || vo.lines > 0 && w.lines >= maxLines {
		r.count++ // told when the window ends
		return nil
	}
	vo.lines++
	w.lines++
	return w.history.Append(ctx, w.record(d, 0))
}

func (w *Window) of(num uint32) *ofVO {
	vo := w.vos[num]
	if vo == nil {
		vo = &ofVO{repeats: map[kind]*repeat{}}
		w.vos[num] = vo
	}
	return vo
}

// End tells what was repeated, and how many the kernel has not told, of which
// lost is the number until now; then the next window begins.
func (w *Window) End(ctx context.Context, lost map[uint32]uint64) error {
	for num, n := range lost {
		if n != w.lost[num] {
			w.of(num)
		}
	}
	// Who was refused least is named first.
	lines := 0
	for _, num := range slices.SortedFunc(maps.Keys(w.vos), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(len(w.vos[a].repeats), len(w.vos[b].repeats)), cmp.Compare(a, b))
	}) {
		vo := w.vos[num]
		again := slices.DeleteFunc(slices.Collect(maps.Values(vo.repeats)), func(r *repeat) bool { return r.count == 0 })
		slices.SortFunc(again, func(a, b *repeat) int { return cmp.Compare(b.count, a.count) })
		for i, r := range again {
			if i >= maxAtOnce || lines >= maxLines {
				vo.others += r.count
				continue
			}
			lines++
			if err := w.history.Append(ctx, w.record(r.last, r.count)); err != nil {
				return err
			}
		}
		if vo.others == 0 && lost[num] == w.lost[num] {
			continue
		}
		err := w.history.Append(ctx, audit.Record{Actor: "kernel", Action: "isolation", VO: w.names.VO(num), Reason: "refusals beyond those named",
			Detail: map[string]string{"unnamed": strconv.FormatUint(vo.others, 10), "lost": strconv.FormatUint(lost[num]-w.lost[num], 10)}})
		if err != nil {
			return err
		}
	}
	w.vos, w.lines, w.lost = map[uint32]*ofVO{}, 0, maps.Clone(lost)
	return nil
}
