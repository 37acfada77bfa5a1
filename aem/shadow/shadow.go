// Package shadow watches the local process that stands for a remote job: what
// is done to it by signals that nobody can catch is to be done to the job.
package shadow

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/unit"
)

// Poll is how often a shadow is looked at. The kernel tells nobody but the
// parent that a process was stopped.
const Poll = 100 * time.Millisecond

// ID names one process, whatever becomes of its pid.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

// State of a shadow.
type State int

const (
	Running State = iota
	Stopped
	Gone
)

// Process is an open shadow: /proc/PID/stat of it, which reads as gone once it
// is, even if the pid is another's then.
type Process struct {
	ID   ID
	stat *os.File
}

// Open opens the process pid of a user; xos.Permission if it is another's,
// xos.NotFound if there is none.
func Open(pid int, uid uint32) (*Process, error) {
	if pid <= 0 {
		return nil, xos.Errorf(xos.Invalid, "%d is no process", pid)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "there is no process %d", pid)
	}
	p := &Process{stat: f}
	st, err := p.read()
	if err != nil {
		f.Close()
		return nil, err
	}
	p.ID = ID{pid, st.StartTime}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != uid {
		f.Close()
		return nil, xos.Errorf(xos.Permission, "process %d is not yours", pid)
	}
	return p, nil
}

// Reopen opens a process that was opened before, perhaps by a predecessor;
// xos.NotFound if it is gone.
func Reopen(id ID) (*Process, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", id.PID))
	if err != nil {
		return nil, xos.Errorf(xos.NotFound, "process %d is gone", id.PID)
	}
	p := &Process{ID: id, stat: f}
	if st, err := p.read(); err != nil || st.StartTime != id.Start {
		f.Close()
		return nil, xos.Errorf(xos.NotFound, "process %d is gone", id.PID)
	}
	return p, nil
}

func (p *Process) read() (unit.Process, error) {
	buf := make([]byte, 1024)
	n, err := p.stat.ReadAt(buf, 0)
	if n == 0 {
		return unit.Process{}, xos.Errorf(xos.NotFound, "the process is gone: %w", err)
	}
	return unit.ParseStat(buf[:n])
}

// Close forgets the process.
func (p *Process) Close() error { return p.stat.Close() }

// State looks at the process.
func (p *Process) State() State {
	st, err := p.read()
	switch {
	case err != nil || st.State == 'Z' || st.State == 'X':
		return Gone
	case st.State == 'T':
		return Stopped
	}
	return Running // a debugger's stop ('t') is not the user's
}

// Watch calls seen with each state that is new, and again at the next look if
// it failed, until the process is gone and seen knows, or ctx ends.
func (p *Process) Watch(ctx context.Context, seen func(State) error) {
	tick := time.NewTicker(Poll)
	defer tick.Stop()
	last := Running
	for {
		if now := p.State(); now != last {
			if err := seen(now); err == nil {
				last = now
			}
		}
		if last == Gone {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
