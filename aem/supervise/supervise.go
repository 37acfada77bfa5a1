// Package supervise is a job unit's supervisor, the process xos-job: it runs
// one job through libcontainer, keeps what the job writes until it was read,
// and serves a socket on which the execution manager, present or restarted,
// finds the job again. If it is killed, the kernel ends the job with it.
package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/unit"
)

// Unit is the job this process supervises.
type Unit struct {
	dir    string
	spec   unit.Spec
	log    *slog.Logger
	cgroup cgroup

	process   *libcontainer.Process
	container *libcontainer.Container
	control   *os.File // to pid 1
	tty       *os.File // the terminal's master side, if there is one

	stdout, stderr *unit.Spool
	stdin          *stdin

	mu       sync.Mutex
	state    unit.State
	reaped   bool   // pid 1 is gone, and its pid another's perhaps
	signaled bool   // a user's signal was delivered
	killed   string // why the unit was killed, if it was
	changed  chan struct{}
}

// Run supervises the unit in dir until the job has ended. ready is called once
// the job runs, or has already ended because its command does not exist; an
// error before that means that nothing was started. The caller must have
// locked the main goroutine to its thread (the job dies with that thread) and
// be in a mount namespace of its own.
func Run(ctx context.Context, dir string, log *slog.Logger, ready func()) error {
	u := &Unit{dir: dir, log: log, changed: make(chan struct{})}
	if err := unit.Read(filepath.Join(dir, unit.SpecFile), &u.spec); err != nil {
		return err
	}
	if u.spec.UID == 0 || u.spec.GID == 0 {
		return xos.Errorf(xos.Permission, "a job never runs as root")
	}
	me, err := unit.ReadProcess(os.Getpid())
	if err != nil {
		return err
	}
	u.state = unit.State{State: aem.Running, PID: os.Getpid(), StartTime: me.StartTime, Started: time.Now()}
	// From here on a successor can tell that this process is gone.
	if err := u.save(); err != nil {
		return err
	}
	if u.stdout, err = unit.CreateSpool(filepath.Join(dir, unit.StdoutFile)); err != nil {
		return err
	}
	defer u.stdout.Close()
	if u.stderr, err = unit.CreateSpool(filepath.Join(dir, unit.StderrFile)); err != nil {
		return err
	}
	defer u.stderr.Close()

	outputs, reports, err := u.start()
	if err != nil {
		u.destroy()
		return err
	}
	defer u.destroy()
	return u.supervise(ctx, outputs, reports, ready)
}

// output is one stream from the job and where it is kept.
type output struct {
	from *os.File
	to   *unit.Spool
}

// supervise keeps the running job.
func (u *Unit) supervise(ctx context.Context, outputs []output, reports *json.Decoder, ready func()) error {
	var pumps sync.WaitGroup
	for _, o := range outputs {
		pumps.Go(func() { pump(ctx, o) })
	}
	l, err := u.listen()
	if err != nil {
		u.kill("the supervisor could not serve its socket")
		return err
	}
	serving, stop := context.WithCancel(ctx)
	var server sync.WaitGroup
	server.Go(func() { u.serve(serving, l) })
	var meter sync.WaitGroup
	meter.Go(func() { u.measure(serving) })
	if s := u.spec.Limits["seconds"]; s > 0 {
		t := time.AfterFunc(time.Duration(s)*time.Second, func() {
			u.kill(fmt.Sprintf("its time limit of %d seconds ran out", s))
		})
		defer t.Stop()
	}

	var exit *aem.Exit
	first := true
	for exit == nil {
		var r report
		if err := reports.Decode(&r); err != nil {
			break // pid 1 was killed, and the whole unit with it
		}
		exit = r.Exit
		if first {
			ready()
			first = false
		}
	}
	u.reap()
	u.stdout.Drain()
	u.stderr.Drain()
	pumps.Wait()
	u.stdout.End()
	u.stderr.End()
	err = u.end(exit)
	if first {
		ready()
	}
	// Readers who are attached get the rest; others find it in the files.
	stopped := make(chan struct{})
	go func() { server.Wait(); close(stopped) }()
	l.Close()
	select {
	case <-stopped:
	case <-time.After(2 * time.Second):
	}
	stop()
	<-stopped
	meter.Wait()
	return err
}

// end records how the job ended.
func (u *Unit) end(exit *aem.Exit) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	st := &u.state
	st.Ended = time.Now()
	used := u.cgroup.usage()
	used.Peak = max(used.Peak, st.Usage.Peak, st.Usage.Memory)
	if used.CPU < st.Usage.CPU || st.Usage.Disk && !used.Disk { // its cgroup is gone
		peak := used.Peak
		used = st.Usage
		used.Peak = peak
	}
	used.Memory = 0
	st.Usage = used
	if exit == nil {
		exit = &aem.Exit{Signal: int(unix.SIGKILL)}
	}
	st.Exit, st.Reason = *exit, u.killed
	switch {
	case u.killed != "", exit.Signal != 0 && u.signaled:
		st.State = aem.Canceled
	default:
		st.State = aem.Done
	}
	err := u.save()
	u.notify()
	return err
}

// save writes the state; the caller holds mu, or owns u alone.
func (u *Unit) save() error { return unit.Write(filepath.Join(u.dir, unit.StateFile), u.state) }

func (u *Unit) notify() {
	close(u.changed)
	u.changed = make(chan struct{})
}

// status gives the present state and a channel closed at the next change.
func (u *Unit) status() (unit.State, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state, u.changed
}

// signal delivers to the job; negative to the whole process group of its
// command.
func (u *Unit) signal(sig int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state.State.Ended() {
		return nil
	}
	switch s := unix.Signal(max(sig, -sig)); s {
	case unix.SIGKILL:
		u.mu.Unlock()
		u.kill("killed")
		u.mu.Lock()
		return nil
	case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return u.freeze(true)
	case unix.SIGCONT:
		if err := u.freeze(false); err != nil {
			return err
		}
		return u.deliver(sig)
	case 0:
		return nil
	default:
		if s > 64 {
			return xos.Errorf(xos.Invalid, "there is no signal %d", sig)
		}
		u.signaled = true
		return u.deliver(sig)
	}
}

func (u *Unit) deliver(sig int) error {
	line, err := json.Marshal(request{Signal: max(sig, -sig), Group: sig < 0})
	if err != nil {
		return err
	}
	u.control.SetWriteDeadline(time.Now().Add(time.Second)) // it is frozen, and the pipe full
	_, err = u.control.Write(append(line, '\n'))
	if err != nil {
		return xos.Errorf(xos.Unavailable, "the job does not take signals now: %w", err)
	}
	return nil
}

// freeze suspends or resumes; the caller holds mu.
func (u *Unit) freeze(on bool) error {
	if err := u.cgroup.freeze(on); err != nil {
		return err
	}
	u.state.State = aem.Running
	if on {
		u.state.State = aem.Suspended
	}
	err := u.save()
	u.notify()
	return err
}

// kill ends the whole unit at once.
func (u *Unit) kill(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state.State.Ended() {
		return
	}
	if u.killed == "" {
		u.killed = why
	}
	if err := u.cgroup.kill(); err != nil {
		u.log.Error("killing the job", "job", u.spec.Job, "error", err)
	}
	// Before it entered its cgroup, or where that cannot be killed, its pid 1
	// takes the namespace with it.
	u.killFirst()
}

// killFirst kills pid 1; the caller holds mu.
func (u *Unit) killFirst() {
	if pid, err := u.process.Pid(); err == nil && pid > 0 && !u.reaped {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// reap waits for the end of pid 1, and of everything in its namespace.
func (u *Unit) reap() {
	pid, err := u.process.Pid()
	if err != nil || pid <= 0 {
		return
	}
	// It is looked at first and reaped under the lock, so that nobody signals
	// a pid that is free again.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.reaped {
		u.process.Wait()
		u.reaped = true
	}
}

// measure keeps the usage current.
func (u *Unit) measure(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		used := u.cgroup.usage()
		u.mu.Lock()
		if u.state.State.Ended() {
			u.mu.Unlock()
			return
		}
		used.Peak = max(used.Peak, used.Memory, u.state.Usage.Peak)
		u.state.Usage = used
		u.notify()
		u.mu.Unlock()
	}
}

// pump copies one stream of the job until its end, no faster than it is read.
func pump(ctx context.Context, o output) {
	defer o.from.Close()
	buf := make([]byte, unit.MaxData)
	for {
		room, err := o.to.Room(ctx)
		if err != nil {
			return
		}
		n, err := o.from.Read(buf[:min(room, len(buf))])
		if n > 0 {
			if _, err := o.to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) || err != nil { // a terminal ends with EIO
			return
		}
	}
}
