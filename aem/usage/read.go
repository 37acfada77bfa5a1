package usage

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// Each calls f for every record whose time is in [since, before), until it gives
// false; a zero time is no bound. One that is told twice is the same job's on the
// same machine: see Sums.
func (l *Ledger) Each(since, before time.Time, f func(*xosv1.UsageRecord) bool) error {
	months, open, err := l.snapshot()
	if err != nil {
		return err
	}
	within := func(r *xosv1.UsageRecord) bool {
		at := r.Until.AsTime()
		return !at.Before(since) && (before.IsZero() || at.Before(before))
	}
	for _, m := range months {
		first, err := time.Parse(month, strings.TrimSuffix(filepath.Base(m.path), lines))
		if err != nil || !before.IsZero() && !first.Before(before) || !first.AddDate(0, 1, 0).After(since) {
			continue
		}
		if more, err := m.each(within, f); err != nil || !more {
			return err
		}
	}
	for _, r := range open {
		if within(r) && !f(r) {
			return nil
		}
	}
	return nil
}

// monthFile is a file of records as it was at one moment.
type monthFile struct {
	path string
	size int64
}

// snapshot gives all records there are at this moment.
func (l *Ledger) snapshot() (months []monthFile, open []*xosv1.UsageRecord, err error) {
	l.settling.Lock() // no line is half written, and a record that is settled is in one or the other
	defer l.settling.Unlock()
	names, err := l.months()
	if err != nil {
		return nil, nil, err
	}
	for _, at := range names {
		st, err := os.Stat(at)
		if err != nil {
			return nil, nil, err
		}
		months = append(months, monthFile{at, st.Size()})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return months, slices.Collect(maps.Values(l.open)), nil
}

func (m monthFile) each(within, f func(*xosv1.UsageRecord) bool) (more bool, err error) {
	file, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // it was too old
	} else if err != nil {
		return false, err
	}
	defer file.Close()
	scan := bufio.NewScanner(io.LimitReader(file, m.size))
	scan.Buffer(nil, 16*MaxRecord)
	for n := 1; scan.Scan(); n++ {
		r, err := decode(scan.Bytes())
		if err != nil {
			return false, xos.Errorf(xos.Internal, "line %d of %s is damaged: %w", n, m.path, err)
		}
		if within(r) && !f(r) {
			return false, nil
		}
	}
	return true, scan.Err()
}
