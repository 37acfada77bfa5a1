package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/session/residue"
)

// sweepState is the last sweep, or the one under way.
type sweepState struct {
	mu      sync.Mutex
	running bool
	last    *xosv1.Sweep
	report  residue.Report
}

func (w *sweepState) findings(id uint32) []residue.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report.Of(id)
}

func (w *sweepState) count(id uint32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(w.report.Counts[id])
}

func (s *Service) lastSweep() *xosv1.Sweep {
	s.swept.mu.Lock()
	defer s.swept.mu.Unlock()
	last := s.swept.last
	if last == nil {
		return &xosv1.Sweep{}
	}
	return &xosv1.Sweep{Id: last.Id, Began: last.Began, Ended: last.Ended, Files: last.Files, Uids: last.Uids, Freed: last.Freed,
		Looked: last.Looked, Blind: last.Blind, Skipped: last.Skipped, Failed: last.Failed}
}

func (s *Service) sweptAt() time.Time {
	if last := s.lastSweep(); last.Began != nil {
		return last.Began.AsTime()
	}
	return time.Time{}
}

// beginSweep starts a sweep, unless one is under way. It ends with the service.
func (s *Service) beginSweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swept.mu.Lock()
	defer s.swept.mu.Unlock()
	if s.swept.running || s.ctx.Err() != nil {
		return
	}
	var b [6]byte
	rand.Read(b[:])
	s.swept.running = true
	id := "sweep-" + hex.EncodeToString(b[:])
	s.swept.last = &xosv1.Sweep{Id: id, Began: stamp(s.Now())}
	s.work.Go(func() { s.sweepUIDs(s.ctx, id) })
}

// sweepUIDs searches the machine for what is left of the quarantined ids, puts
// on record what was found, and frees those of which nothing is left.
func (s *Service) sweepUIDs(ctx context.Context, id string) {
	resting, _ := s.resting()
	for _, e := range resting {
		if err := s.Guard.Rest(ctx, e.ID, func() bool { return s.rests(e) }); err != nil {
			s.Log.Warn("what bounds the sessions of a uid", "uid", e.ID, "error", err)
		}
		if err := residue.Clear(e.ID); err != nil {
			s.Log.Warn("what the machine keeps of a uid", "uid", e.ID, "error", err)
		}
		if e.Sub == 0 {
			continue
		}
		if err := residue.ClearSubIDs(e.Sub); err != nil {
			s.Log.Warn("what the machine keeps of subordinate ids", "uid", e.ID, "first", e.Sub, "error", err)
		}
	}
	r, err := s.Search(ctx, subjects(resting), func(files int) {
		s.swept.mu.Lock()
		defer s.swept.mu.Unlock()
		s.swept.last.Files = int64(files)
	})
	freed := 0
	if err == nil {
		s.swept.mu.Lock()
		s.swept.report = r // what is shown while the outcome is put on record
		s.swept.mu.Unlock()
		for _, e := range resting {
			done, ferr := s.judge(ctx, e, r, id)
			if ferr != nil {
				err = ferr
			}
			if done {
				freed++
			}
		}
	}
	s.unlabel(ctx)
	if err != nil {
		s.Log.Error("the sweep of uids failed", "sweep", id, "error", err)
	}
	s.swept.mu.Lock()
	defer s.swept.mu.Unlock()
	last := s.swept.last
	s.swept.running = false
	last.Ended, last.Uids, last.Freed = stamp(s.Now()), int64(len(resting)), int64(freed)
	last.Looked, last.Blind, last.Skipped = looked(r), r.Blind(), skipped(r)
	if err != nil {
		last.Failed = err.Error()
	}
	s.Log.Info("uids swept", "sweep", id, "uids", len(resting), "freed", freed, "files", last.Files, "findings", len(r.Findings))
}

// judge puts on record what a sweep found of an id and frees it if that was
// nothing and its time is over. The proof is on the disk before.
func (s *Service) judge(ctx context.Context, e account.Entry, r residue.Report, sweep string) (freed bool, err error) {
	a, err := xos.ParseAccount(e.Name)
	if err != nil {
		return false, err
	}
	used, err := s.lastFigures(ctx, e.ID)
	if err != nil {
		return false, err
	}
	at, limited := s.Accounts.Due(e)
	clean := r.Clean(e.ID)
	due := limited && !s.Now().Before(at)
	record := audit.Record{Actor: string(s.cfg.Node), Action: "uid.free", Subject: e.Name, VO: a.VO, User: a.User, Allowed: clean && due, Admitted: true, Request: sweep,
		Detail: map[string]string{"uid": strconv.FormatUint(uint64(e.ID), 10), "subids": strconv.FormatUint(uint64(e.Sub), 10), "looked": strings.Join(looked(r), "; "), "found": traces(r, e.ID), "used": used,
			"when": r.Began.Format(time.RFC3339) + " to " + r.Ended.Format(time.RFC3339)}}
	switch blind := r.Blind(); {
	case r.Counts[e.ID] > 0:
		record.Reason = fmt.Sprintf("%d traces are left", r.Counts[e.ID])
	case len(blind) > 0:
		record.Reason = "not everything could be looked at: " + strings.Join(blind, "; ")
	case !clean:
		record.Reason = "the search did not come to its end"
	case !limited:
		record.Reason = "nothing is left; uids are kept for ever here"
	case !due:
		record.Reason = "nothing is left; it rests until " + at.UTC().Format(time.RFC3339)
	default:
		record.Reason = "nothing is left"
	}
	if err := s.Audit.Append(ctx, record); err != nil {
		return false, xos.Errorf(xos.Unavailable, "the audit log cannot be written: %w", err)
	}
	if !record.Allowed {
		return false, nil
	}
	err = s.Accounts.Free(a, account.Proof{ID: e.ID, Since: e.Since, Search: sweep})
	if xos.Is(err, xos.Conflict) {
		return false, nil // she has come back meanwhile
	}
	if err != nil {
		return false, err
	}
	// Her mount point, if it is empty; nobody else's has its name.
	os.Remove(s.home(a))
	if s.serves(a.VO) {
		err = s.publish(a)
	}
	return true, err
}

// traces names the first findings of an id.
func traces(r residue.Report, id uint32) string {
	var words []string
	for _, f := range r.Of(id) {
		words = append(words, string(f.Kind)+" "+f.Where+" ("+f.Why+")")
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, "; ")
}
