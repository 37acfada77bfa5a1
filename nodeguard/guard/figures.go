package guard

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// job keeps figures of a job and its VO from now on. dir is the job's cgroup.
func (m *meter) job(dir string, vo xos.VOName, job xos.JobID) error {
	id, err := cgroupID(dir)
	if err != nil {
		return err
	}
	ofVO, err := cgroupID(filepath.Dir(dir))
	if err != nil {
		return err
	}
	if err := m.keep(bpf.AccountXosWho{Kind: uint32(bpf.AccountXosKindXOS_OF_VO), Id: ofVO}, vo, ""); err != nil {
		return err
	}
	return m.keep(bpf.AccountXosWho{Kind: uint32(bpf.AccountXosKindXOS_OF_JOB), Id: id}, vo, string(job))
}

// user keeps figures of what a uid does outside of jobs.
func (m *meter) user(uid uint32, a xos.Account) error {
	return m.keep(bpf.AccountXosWho{Kind: uint32(bpf.AccountXosKindXOS_OF_USER), Id: uint64(uid)}, a.VO, string(a.User))
}

// keep makes the entry of one of whom there are figures from now on. One whose
// number somebody else had begins anew.
func (m *meter) keep(who bpf.AccountXosWho, vo xos.VOName, name string) error {
	of, err := ownerOf(bpf.AccountXosKind(who.Kind), vo, name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.whos[of]; ok && old != who {
		if err := m.drop(of, old); err != nil {
			return err
		}
	}
	var was owner
	if err := m.owners.Lookup(who, &was); err == nil && was != of {
		if err := m.drop(was, who); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return xos.Errorf(xos.Unavailable, "looking up whose figures %s's are: %w", of, err)
	}
	// The owner first: figures of nobody would never be forgotten.
	if err := enter(func() error { return m.owners.Put(who, of) }); err != nil {
		return unroomy("figures of "+of.String(), err)
	}
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return xos.Errorf(xos.Internal, "counting processors: %w", err)
	}
	none := make([]bpf.AccountXosUsed, n)
	if err := enter(func() error { return m.used.Update(who, none, ebpf.UpdateNoExist) }); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return unroomy("figures of "+of.String(), err)
	}
	m.whos[of] = who
	return m.places.give(who)
}

// forget drops the figures of a job.
func (m *meter) forget(vo xos.VOName, job xos.JobID) error {
	of, err := ownerOf(bpf.AccountXosKindXOS_OF_JOB, vo, string(job))
	if err != nil {
		return nil // of such a one there are none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	who, ok := m.whos[of]
	if !ok {
		return nil
	}
	return m.drop(of, who)
}

// drop removes an entry; m.mu is held.
func (m *meter) drop(of owner, who bpf.AccountXosWho) error {
	for _, in := range []*ebpf.Map{m.used, m.owners} {
		if err := in.Delete(who); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return xos.Errorf(xos.Unavailable, "dropping the figures of %s: %w", of, err)
		}
	}
	if err := m.places.take(who); err != nil {
		return err
	}
	if m.whos[of] == who {
		delete(m.whos, of)
	}
	return nil
}

// figures adds up what the processors counted; false for one of whom there are
// no figures.
func (m *meter) figures(kind bpf.AccountXosKind, vo xos.VOName, name string) (sum bpf.AccountXosUsed, ok bool, err error) {
	of, err := ownerOf(kind, vo, name)
	if err != nil {
		return sum, false, nil
	}
	m.mu.Lock()
	who, ok := m.whos[of]
	m.mu.Unlock()
	if !ok {
		return sum, false, nil
	}
	return m.sum(who)
}

// sum is figures by number.
func (m *meter) sum(who bpf.AccountXosWho) (sum bpf.AccountXosUsed, ok bool, err error) {
	var each []bpf.AccountXosUsed
	if err := m.used.Lookup(who, &each); errors.Is(err, ebpf.ErrKeyNotExist) {
		return sum, false, nil
	} else if err != nil {
		return sum, false, xos.Errorf(xos.Unavailable, "reading the figures of %d: %w", who.Id, err)
	}
	for _, u := range each {
		sum.NetIn += u.NetIn
		sum.NetOut += u.NetOut
		sum.Execs += u.Execs
		sum.Opens += u.Opens
		sum.Read += u.Read
		sum.Written += u.Written
		sum.Refused += u.Refused
	}
	often, err := m.places.of(who)
	sum.NetIn += often.NetIn
	sum.NetOut += often.NetOut
	sum.Opens += often.Opens
	return sum, err == nil, err
}

// withAlive is figures with what the threads in dir, which live, have done so
// far of that which they tell only at their end. Each thread is counted once: if
// some end meanwhile, again and again, the living are left out.
func (m *meter) withAlive(kind bpf.AccountXosKind, vo xos.VOName, name, dir string) (sum bpf.AccountXosUsed, ok bool, err error) {
	sum, ok, err = m.figures(kind, vo, name)
	for range 5 {
		if !ok || err != nil {
			break
		}
		before := sum
		read, written := alive(dir)
		sum, ok, err = m.figures(kind, vo, name)
		if sum.Read == before.Read && sum.Written == before.Written {
			sum.Read, sum.Written = sum.Read+read, sum.Written+written
			break
		}
	}
	return sum, ok, err
}

// alive adds up what the threads in a cgroup and below it have done.
func alive(dir string) (read, written uint64) {
	_ = filepath.WalkDir(dir, func(at string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() != "cgroup.procs" {
			return nil
		}
		data, _ := os.ReadFile(at)
		for _, pid := range strings.Fields(string(data)) {
			tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/io")
			for _, task := range tasks {
				r, w := ioOf(task)
				read, written = read+r, written+w
			}
		}
		return nil
	})
	return read, written
}

// ioOf reads /proc/PID/task/TID/io (proc_pid_io(5)).
func ioOf(path string) (read, written uint64) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0
	}
	var cancelled uint64
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "read_bytes":
			read = n
		case "write_bytes":
			written = n
		case "cancelled_write_bytes":
			cancelled = n
		}
	}
	return read, written - min(written, cancelled)
}

// users gives all users of whom there are figures, by their uids.
func (m *meter) users() map[uint64]xos.Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := map[uint64]xos.Account{}
	for of, who := range m.whos {
		if of.Kind == uint32(bpf.AccountXosKindXOS_OF_USER) {
			list[who.Id] = xos.Account{User: xos.UserID(text(of.Name[:])), VO: xos.VOName(text(of.VO[:]))}
		}
	}
	return list
}
