package execution

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
	"github.com/xtreemos/xos/session"
)

// logFile is what the supervisor has to say.
const logFile = "log"

// launch makes the unit's directory and starts its supervisor; it returns when
// the job runs, or with the reason why it does not, and then nothing is left.
func (e *Execution) launch(ctx context.Context, r *running, grant session.Credential) (err error) {
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(r.dir)
		}
	}()
	if err := saveGrant(r.dir, grant); err != nil {
		return err
	}
	// The specification is written last: a directory without one is a start
	// that a crash cut short.
	if err := unit.Write(filepath.Join(r.dir, unit.SpecFile), r.spec); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(r.dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	answer, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	// Not bound to a context: it outlives this process.
	cmd := exec.Command(e.cfg.Supervisor, r.dir)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return xos.Errorf(xos.Internal, "starting the supervisor: %w", err)
	}
	go func() { // reaps it; ends with it, or with this process
		cmd.Wait()
		close(r.exited)
	}()
	stop := context.AfterFunc(ctx, func() { answer.Close() })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(answer, 4096))
	if err == nil && string(said) == "ok" {
		return nil
	}
	cmd.Process.Kill()
	<-r.exited
	if err != nil {
		return xos.Errorf(xos.Unavailable, "the job did not start in time on %s", e.cfg.Node)
	}
	return xos.Errorf(xos.Internal, "%s could not start the job: %w", e.cfg.Node, errors.New(string(said)))
}

// state reads how the supervisor says the unit stands.
func (r *running) state() (unit.State, error) {
	var st unit.State
	err := unit.Read(filepath.Join(r.dir, unit.StateFile), &st)
	return st, err
}
