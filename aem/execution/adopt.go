package execution

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
)

// adopt takes over the units that are there.
func (e *Execution) adopt() error {
	entries, err := os.ReadDir(e.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id := xos.JobID(entry.Name())
		if !entry.IsDir() || !aem.ValidJobID(id) {
			continue
		}
		if err := e.adoptUnit(id, filepath.Join(e.cfg.Dir, entry.Name())); err != nil {
			e.Log.Error("a job unit could not be taken over", "job", id, "error", err)
		}
	}
	return nil
}

func (e *Execution) adoptUnit(id xos.JobID, dir string) error {
	r := &running{dir: dir, exited: make(chan struct{})}
	close(r.exited)
	err := unit.Read(filepath.Join(dir, unit.SpecFile), &r.spec)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) // its start was cut short before anything ran
	}
	if err != nil {
		return err
	}
	if r.spec.Job != id {
		return xos.Errorf(xos.Internal, "%s describes job %s", dir, r.spec.Job)
	}
	st, err := r.state()
	if errors.Is(err, fs.ErrNotExist) {
		// The supervisor writes its state before it starts anything. It may be
		// about to: it will fail without its directory, and nothing was told
		// to anybody.
		return os.RemoveAll(dir)
	}
	if err != nil {
		return err
	}
	r.job = e.complete(unit.Job(r.spec, st))
	if !st.State.Ended() {
		e.readmit(r)
	}
	e.units[id] = r
	e.work.Go(func() { e.watch(r) })
	return nil
}

// readmit tells the session service that the account still has a job here. If
// that fails the job goes on all the same: it was admitted once.
func (e *Execution) readmit(r *running) {
	grant, err := loadGrant(r.dir)
	if err == nil {
		_, r.release, err = e.Sessions.Admit(e.ctx, grant.Identity, grant)
	}
	if err != nil {
		e.Log.Warn("a running job was not admitted again", "job", r.spec.Job, "error", err)
	}
}
