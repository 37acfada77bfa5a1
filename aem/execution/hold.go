package execution

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// heldFile, in a unit's directory, says that its user's access ended and that
// the unit must stand still. What is in it says whether that stopped it: one
// that she had stopped herself stays so when she is back.
const (
	heldFile   = "held"
	heldByUs   = "stopped"
	heldBefore = "it stood before"
)

func (r *running) held() (by string) {
	data, err := os.ReadFile(filepath.Join(r.dir, heldFile))
	if err != nil {
		return ""
	}
	return string(data)
}

// hold stops a unit for as long as its user has no access.
func (e *Execution) hold(ctx context.Context, r *running) {
	r.holding.Lock()
	defer r.holding.Unlock()
	stands := r.status().State == xosv1.JobState_JOB_STATE_SUSPENDED
	by := r.held()
	if r.over() || stands && by != "" {
		return
	}
	if by == "" {
		by = heldByUs
		if stands {
			by = heldBefore
		}
		// Noted first: else a crash would leave it stopped for ever.
		if err := os.WriteFile(filepath.Join(r.dir, heldFile), []byte(by), 0o600); err != nil {
			e.Log.Error("a job is not stopped", "job", r.spec.Job, "error", err)
			return
		}
	}
	if stands {
		return
	}
	if err := e.signal(ctx, r, int(unix.SIGSTOP)); err != nil && !r.over() {
		e.Log.Error("a job is not stopped", "job", r.spec.Job, "error", err)
		return
	}
	e.Log.Info("job frozen: its user's access ended", "job", r.spec.Job, "account", r.spec.Account)
}

// resume lets a unit go on that hold stopped.
func (e *Execution) resume(ctx context.Context, r *running) {
	r.holding.Lock()
	defer r.holding.Unlock()
	by := r.held()
	if by == "" || r.over() {
		return
	}
	if by == heldByUs {
		if err := e.signal(ctx, r, int(unix.SIGCONT)); err != nil && !r.over() {
			e.Log.Error("a job does not go on", "job", r.spec.Job, "error", err)
			return
		}
	}
	if err := os.Remove(filepath.Join(r.dir, heldFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.Log.Error("a job's note", "job", r.spec.Job, "error", err)
	}
	e.Log.Info("job goes on: its user's access came back", "job", r.spec.Job, "account", r.spec.Account)
}
