package audit

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

// Bounds of what refused requests write into a log that whoever reaches a port
// may be refused by. With a window of ten minutes they come to some 45 lines a
// minute, however many are refused.
const (
	window     = 10 * time.Minute
	maxOfOne   = 20   // lines of one origin
	maxOfAll   = 200  // lines of all origins that are known, and again of the others
	maxOrigins = 1000 // of either that are told apart
	maxNamed   = 20   // of either that are counted by name
)

// ActionRefused is of the entries that count refusals which have no line.
const ActionRefused = "audit.refused"

// detailUnwritten says in such an entry how many.
const detailUnwritten = "unwritten"

// Origin is where a request comes from, as far as its sender cannot choose it.
type Origin struct {
	Name string // "alice@physics", "uid 1000", an address without a port
	// Known is of one that proved who it is. There are few of these, and none
	// of the others takes their room: each has its first line in any case.
	Known bool
}

// Bounded is a log in which a refusal is one line only within bounds, for each
// origin and for all; beyond them refusals are counted, and the log has the exact
// count when a window ends and when it is closed. What was allowed, and what
// was asked by who had the right to (Record.Admitted), is always a line. It is safe
// for concurrent use.
//
// That counting has begun is a line at once, so a log whose writer was killed
// in between says that some are missing, though not how many.
type Bounded struct {
	*Log
	origin func(context.Context, Record) Origin

	mu    sync.Mutex
	since time.Time
	known side
	other side
}

// side is what origins of one kind were refused in a window.
type side struct {
	of      map[Origin]*tally
	lines   int
	beyond  uint64 // unwritten, of origins that are not told apart
	counted bool   // and the log says so
}

type tally struct {
	lines     int
	unwritten uint64
}

// Bound bounds the refusals of l, which it owns. origin says whose a request is.
func Bound(l *Log, origin func(context.Context, Record) Origin) *Bounded {
	return &Bounded{Log: l, origin: origin, since: l.now()}
}

// Append is Log.Append for what has a line; it returns at once for a refusal that
// is only counted.
func (b *Bounded) Append(ctx context.Context, r Record) error {
	_, err := b.Note(ctx, r)
	return err
}

// Note is Append, and says whether the record has a line.
func (b *Bounded) Note(ctx context.Context, r Record) (line bool, err error) {
	if r.Allowed || r.Admitted {
		return b.Log.Note(ctx, r)
	}
	o := b.origin(ctx, r)
	o.Name = cut(o.Name)
	line, first := b.take(o)
	switch {
	case line:
		if err = b.Log.Append(ctx, r); err != nil {
			b.missed(o, 1)
		}
		return err == nil, err
	case first:
		return false, b.Log.Append(ctx, Record{Actor: "xos", Action: ActionRefused,
			Reason: "too many refusals for a line each: from here on they are counted" + b.whose(o)})
	}
	return false, nil
}

func (b *Bounded) whose(o Origin) string {
	if o.Known {
		return ", of those who are known"
	}
	return ", of strangers"
}

// take says whether a refusal has a line. If not it is counted; first is of the
// first one of a window.
func (b *Bounded) take(o Origin) (line, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.side(o)
	t := s.tally(o)
	if t != nil && t.lines < maxOfOne && (s.lines < maxOfAll || o.Known && t.lines == 0) {
		t.lines++
		s.lines++
		return true, false
	}
	s.count(o, 1)
	first, s.counted = !s.counted, true
	return false, first
}

// missed counts refusals that should have had lines.
func (b *Bounded) missed(o Origin, n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.side(o).count(o, n)
}

func (b *Bounded) side(o Origin) *side {
	if o.Known {
		return &b.known
	}
	return &b.other
}

func (s *side) count(o Origin, n uint64) {
	if t := s.tally(o); t != nil {
		t.unwritten += n
		return
	}
	s.beyond += n
}

// tally gives an origin's; nil if there are too many.
func (s *side) tally(o Origin) *tally {
	t := s.of[o]
	if t == nil && o.Name != "" && len(s.of) < maxOrigins {
		if s.of == nil {
			s.of = map[Origin]*tally{}
		}
		t = &tally{}
		s.of[o] = t
	}
	return t
}

// Tell ends a window: what has no line is told by numbers. What cannot be written
// is told with the next window's.
func (b *Bounded) Tell(ctx context.Context) error {
	b.mu.Lock()
	since, known, other := b.since, b.known, b.other
	b.since, b.known, b.other = b.now(), side{}, side{}
	b.mu.Unlock()
	return cmp.Or(b.tell(ctx, since, known, true), b.tell(ctx, since, other, false))
}

func (b *Bounded) tell(ctx context.Context, since time.Time, s side, known bool) (failed error) {
	origins := slices.DeleteFunc(slices.Collect(maps.Keys(s.of)), func(o Origin) bool { return s.of[o].unwritten == 0 })
	slices.SortFunc(origins, func(a, b Origin) int {
		return cmp.Or(cmp.Compare(s.of[b].unwritten, s.of[a].unwritten), cmp.Compare(a.Name, b.Name))
	})
	write := func(o Origin, n uint64, more string) {
		r := Record{Actor: cmp.Or(o.Name, "xos"), Action: ActionRefused, Reason: "refusals beyond those with a line" + more,
			Detail: map[string]string{detailUnwritten: strconv.FormatUint(n, 10), "since": since.UTC().Format(time.RFC3339)}}
		if a, err := xos.ParseAccount(o.Name); known && err == nil {
			r.User, r.VO = a.User, a.VO
		}
		if err := b.Log.Append(ctx, r); err != nil {
			b.missed(o, n)
			failed = err
		}
	}
	for i, o := range origins {
		if i >= maxNamed {
			s.beyond += s.of[o].unwritten
			continue
		}
		write(o, s.of[o].unwritten, "")
	}
	if s.beyond > 0 {
		write(Origin{Known: known}, s.beyond, b.whose(Origin{Known: known}))
	}
	return failed
}

// Run ends windows until ctx ends; Close tells of the last one.
func (b *Bounded) Run(ctx context.Context) error {
	t := time.NewTicker(window)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			b.Tell(ctx) // what fails is told with the next; whoever is refused hears of the log's state
		}
	}
}

// Close tells of what has no line, and closes the log.
func (b *Bounded) Close() error {
	return cmp.Or(b.Tell(context.Background()), b.Log.Close())
}
