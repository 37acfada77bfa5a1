package guard

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
)

// Test fires what keeps VOs apart, and tells what did not do so: programs by a
// connection of this process, /proc and IPC in namespaces made for it, and the
// sessions' own namespaces, one by one, from within.
func (g *Guard) Test() []nodeguard.Feature {
	var results []nodeguard.Feature
	note := func(name string, err error) {
		f := nodeguard.Feature{Name: name, Have: err == nil}
		if err != nil {
			f.Why = err.Error()
		}
		results = append(results, f)
	}
	g.testing.Lock()
	defer g.testing.Unlock()
	if g.network == nil {
		note("network", xos.Errorf(xos.NotSupported, "the programs are not loaded"))
	} else {
		note("network", g.network.fire())
	}
	note("devices", g.network.fireDevices())
	if g.lsm != nil {
		results = append(results, g.lsm.probe()...)
	}
	note("hidepid", inNew(seesNobody))
	note("ipc", ipcApart())
	g.mu.Lock()
	namespaces := map[xos.VOName]*os.File{}
	for vo, f := range g.namespaces {
		namespaces[vo] = f
	}
	g.mu.Unlock()
	for vo, f := range namespaces {
		note("session of "+string(vo), g.sessionApart(vo, f))
	}
	return results
}

// inNew runs a check in new namespaces.
func inNew(check func() error) error {
	f, err := newNamespace(check)
	if err != nil {
		return err
	}
	return f.Close()
}

// seesNobody becomes a grid uid that nobody has, on this thread alone, which
// must then not see process 1.
func seesNobody() error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(session.LastID), ^uintptr(0)); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	_, err := os.Stat("/proc/1")
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)); e != 0 {
		return os.NewSyscallError("setresuid back", e)
	}
	if err == nil {
		return xos.Errorf(xos.Internal, "a grid user sees process 1")
	}
	return nil
}

// ipcApart makes a System V segment here and must not find it in a new IPC
// namespace.
func ipcApart() error {
	const key = 0x584f5354
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		return os.NewSyscallError("shmget", err)
	}
	defer unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return inNew(func() error {
		if _, err := unix.SysvShmGet(key, 0, 0); !errors.Is(err, unix.ENOENT) {
			return xos.Errorf(xos.Internal, "an IPC object is found across namespaces (%v)", err)
		}
		return nil
	})
}

// sessionApart looks from within a VO's namespace: nothing of what everybody
// may write in is the machine's, and no other VO's home is there.
func (g *Guard) sessionApart(vo xos.VOName, ns *os.File) error {
	outside := map[string]unix.Stat_t{}
	places := append([]string{"/dev/shm", dbusDir, systemdDir}, g.scratch...)
	for _, at := range places {
		var st unix.Stat_t
		if unix.Stat(at, &st) == nil {
			outside[at] = st
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: it ends in another namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return os.NewSyscallError("setns", err)
			}
			for at, there := range outside {
				var st unix.Stat_t
				if err := unix.Stat(at, &st); err != nil {
					return &os.PathError{Op: "stat", Path: at, Err: err}
				}
				if st.Dev == there.Dev && st.Ino == there.Ino {
					return xos.Errorf(xos.Internal, "%s is the machine's", at)
				}
			}
			return g.onlyOwnHomes(vo)
		}()
	}()
	return <-done
}

func (g *Guard) onlyOwnHomes(vo xos.VOName) error {
	if g.homes == "" {
		return nil
	}
	entries, err := os.ReadDir(g.homes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != string(vo) {
			return xos.Errorf(xos.Internal, "%s is to be seen", filepath.Join(g.homes, e.Name()))
		}
	}
	return nil
}

// Counts gives what the programs decided about grid users, by name.
func (g *Guard) Counts() (names []string, counts []uint64, err error) {
	if g.network == nil {
		return nil, nil, nil
	}
	// In the order of enum xos_count.
	for i, name := range []string{"connections allowed", "refused: another VO's port", "refused: no VO known", "refused: protocol", "connections allowed: shared with another VO", "refused: device", "refused: no memory for a label"} {
		var each []uint64
		if err := g.network.objs.Counts.Lookup(uint32(i), &each); err != nil {
			return nil, nil, xos.Errorf(xos.Unavailable, "reading count %s: %w", strconv.Itoa(i), err)
		}
		var sum uint64
		for _, n := range each {
			sum += n
		}
		names, counts = append(names, name), append(counts, sum)
	}
	if g.lsm != nil {
		refused := map[string]uint64{}
		for _, h := range hooks {
			n, err := g.lsm.count(uint32(h.id))
			if err != nil {
				return nil, nil, err
			}
			refused[h.aim] += n
		}
		for _, aim := range aims() {
			names, counts = append(names, "refused by the kernel's checks: "+aim), append(counts, refused[aim])
		}
	}
	lost, err := g.network.lost()
	if err != nil {
		return nil, nil, err
	}
	var sum uint64
	for _, n := range lost {
		sum += n
	}
	return append(names, "refused, and too many at once to be in the log"), append(counts, sum), nil
}
