package guard

import (
	"errors"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
)

// firing prepares one act that a hook judges, and is harmless if the hook lets
// it through. All three run on one thread. undo may be nil.
type firing func() (act func() error, undo func(), err error)

// simple is a firing that needs no preparation.
func simple(act func() error) firing {
	return func() (func() error, func(), error) { return act, nil, nil }
}

// errAbsent: this kernel has not what a hook would guard.
var errAbsent = errors.New("the kernel has nothing that it would guard")

// fire proves that a hook's program runs and is obeyed: it is told to refuse
// one thread, whose act must then be refused.
func (l *lsm) fire(h hook) error {
	if err := l.failed[h.name]; err != nil {
		return err
	}
	tid, act, end, err := onThread(h.fire)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "probing %s: %w", h.name, err)
	}
	defer end()
	if h.id == bpf.LsmXosHookXOS_PTRACE_TRACEME {
		tid = os.Getpid() // it is a child that acts
	}
	zero := uint32(0)
	probe := l.maps[probeSection]
	if err := probe.Put(zero, bpf.LsmXosProbe{Hook: uint32(h.id), Tid: uint32(tid)}); err != nil {
		return xos.Errorf(xos.Internal, "arming the probe: %w", err)
	}
	said := act()
	var got bpf.LsmXosProbe
	err = errors.Join(probe.Lookup(zero, &got), probe.Put(zero, bpf.LsmXosProbe{}))
	switch refused := errors.Is(said, unix.EPERM) || errors.Is(said, unix.EACCES); {
	case err != nil:
		return xos.Errorf(xos.Internal, "reading the probe: %w", err)
	case got.Fired == 0 && errors.Is(said, unix.ENOSYS):
		return errAbsent
	case got.Fired == 0:
		return xos.Errorf(xos.NotSupported, "%s does not fire%s", h.name, lsmList())
	case !refused:
		return xos.Errorf(xos.NotSupported, "%s fires and is not obeyed (%v)", h.name, said)
	}
	return nil
}

// lsmList says in an error what the kernel was booted with.
func lsmList() string {
	data, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil || strings.Contains(","+strings.TrimSpace(string(data))+",", ",bpf,") {
		return ""
	}
	return ": the kernel's list of security modules is " + strings.TrimSpace(string(data)) + ", without bpf"
}

// onThread prepares a firing on a thread of its own and gives the thread's
// number, and functions that have it act, and clean up. end must be called.
func onThread(f firing) (tid int, act func() error, end func(), err error) {
	type prepared struct {
		tid int
		err error
	}
	ready, turn, said, over := make(chan prepared), make(chan bool), make(chan error), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		act, undo, err := f()
		if undo != nil {
			defer undo()
		}
		ready <- prepared{unix.Gettid(), err}
		if err == nil {
			for <-turn {
				said <- act()
			}
		}
	}()
	p := <-ready
	if p.err != nil {
		<-over
		return 0, nil, nil, p.err
	}
	return p.tid, func() error { turn <- true; return <-said }, func() { close(turn); <-over }, nil
}

// probe fires all hooks and tells of each aim whether all it needs did.
func (l *lsm) probe() []nodeguard.Feature {
	var list []nodeguard.Feature
	for _, aim := range aims() {
		f := nodeguard.Feature{Name: "lsm " + aim, Have: true}
		var why []string
		for _, h := range hooks {
			if h.aim != aim {
				continue
			}
			if err := l.fire(h); err != nil && err != errAbsent {
				f.Have = f.Have && h.policy
				why = append(why, err.Error())
			}
		}
		f.Why = strings.Join(why, "; ")
		list = append(list, f)
	}
	return list
}
