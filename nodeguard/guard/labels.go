package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/session"
)

// labels tells the BPF programs whose a uid and a cgroup are. The maps outlive
// this process, and what is in them with it.
type labels struct {
	root, subtree string // of the VOs' cgroups
	uids          *ebpf.Map
	names         names
	keep          func(vo uint32) error // makes place to tell of a VO

	mu       sync.Mutex
	cgroups  *ebpf.Map             // nil without LSM programs
	tallies  *ebpf.Map             // the same
	changes  *ebpf.Map             // label_changes of bpf/label.h, nil if there are no programs that heed it
	vos      map[xos.VOName]uint32 // those labelled by this process
	accounts map[uint32]xos.Account
	slices   map[string]uint64   // labelled cgroups of logins, with their ids
	jobs     map[uint64]jobLabel // by the id of its cgroup
}

// jobLabel says whose job a cgroup is.
type jobLabel struct {
	job xos.JobID
	dir string
}

func newLabels(n *network, root, subtree, pinDir string) (*labels, error) {
	names, err := openNames(pinDir, n.pinned)
	if err != nil {
		return nil, err
	}
	l := &labels{root: root, subtree: subtree, uids: n.objs.VoOfUid, names: names, keep: n.keep, vos: map[xos.VOName]uint32{}, accounts: map[uint32]xos.Account{},
		slices: map[string]uint64{}, jobs: map[uint64]jobLabel{}}
	// A predecessor's programs may go on where this process has none.
	if m, err := ebpf.LoadPinnedMap(filepath.Join(pinDir, bpf.LsmMapLabelChanges), nil); err == nil {
		l.changes = m
	}
	if err := l.recall(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// recall makes place to tell of the VOs, and knows the jobs, that a predecessor
// knew.
func (l *labels) recall() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.names.all()
	if err != nil {
		return err
	}
	for _, vo := range all {
		if _, err := l.known(vo); err != nil {
			return err
		}
	}
	dirs, err := filepath.Glob(filepath.Join(l.root, l.subtree, "vo-*", "job-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := l.remember(dir, xos.JobID(strings.TrimPrefix(filepath.Base(dir), "job-"))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// known gives a VO's number, and makes place to count what it is refused. l.mu
// is held.
func (l *labels) known(vo xos.VOName) (uint32, error) {
	if num, ok := l.vos[vo]; ok {
		return num, nil
	}
	num, err := l.names.number(vo)
	if err != nil {
		return 0, err
	}
	if err := l.keep(num); err != nil {
		return 0, err
	}
	if l.tallies != nil {
		if err := l.tallies.Update(num, bpf.LsmXosTally{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return 0, xos.Errorf(xos.Unavailable, "making a count for VO %s: %w", vo, err)
		}
	}
	l.vos[vo] = num
	return num, nil
}

// user labels a uid, and the cgroup of its logins if it has one by now.
func (l *labels) user(uid uint32, a xos.Account) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	num, err := l.known(a.VO)
	if err != nil {
		return err
	}
	if err := l.labelUser(uid, num); err != nil {
		return err
	}
	l.accounts[uid] = a
	return l.slice(filepath.Join(l.slicesDir(), "user-"+strconv.FormatUint(uint64(uid), 10)+".slice"))
}

// labelUser gives a uid its VO's number. l.mu is held.
func (l *labels) labelUser(uid, num uint32) error {
	var has uint32
	if err := l.uids.Lookup(uid, &has); err == nil && has == num {
		return nil
	}
	return l.change(func() error {
		if err := enter(func() error { return l.uids.Put(uid, num) }); err != nil {
			return unroomy("the label of uid "+strconv.FormatUint(uint64(uid), 10), err)
		}
		return nil
	})
}

// job labels the cgroup of a VO's jobs, above that of the job, which path names
// from the root.
func (l *labels) job(path string, vo xos.VOName, job xos.JobID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	num, err := l.known(vo)
	if err != nil {
		return err
	}
	dir := filepath.Join(l.root, path)
	if l.cgroups != nil {
		if _, err := l.put(filepath.Dir(dir), bpf.LsmXosCgroup{Vo: num}); err != nil {
			return err
		}
	}
	return l.remember(dir, job)
}

// manyJobs is how many cgroups of jobs are known by number before those that
// are gone are forgotten.
const manyJobs = 4096

// remember keeps a job's name, for what is told of it. l.mu is held.
func (l *labels) remember(dir string, job xos.JobID) error {
	id, err := cgroupID(dir)
	if err != nil {
		return err
	}
	if len(l.jobs) >= manyJobs {
		for old, j := range l.jobs {
			if now, err := cgroupID(j.dir); err != nil || now != old {
				delete(l.jobs, old)
			}
		}
	}
	l.jobs[id] = jobLabel{job, dir}
	return nil
}

// useMaps starts to label cgroups, with those that are there, and to count for
// each VO.
func (l *labels) useMaps(cgroups, tallies, changes *ebpf.Map) error {
	changes, err := changes.Clone() // stays when the programs are given up
	if err != nil {
		return xos.Errorf(xos.Internal, "the count of changed labels: %w", err)
	}
	l.mu.Lock()
	l.cgroups, l.tallies = cgroups, tallies
	if l.changes != nil {
		l.changes.Close()
	}
	l.changes = changes
	clear(l.vos)
	l.mu.Unlock()
	return l.relabel()
}

// change does what changes labels. Meanwhile LSM programs look up whose each thread is,
// and keep it no more; after it they find it anew. One that a predecessor did not end
// is ended with it. l.mu is held.
func (l *labels) change(do func() error) error {
	if l.changes == nil {
		return do()
	}
	var n uint32
	err := l.changes.Lookup(uint32(0), &n)
	if err == nil {
		n |= 1
		err = l.changes.Put(uint32(0), n)
	}
	if err != nil {
		return xos.Errorf(xos.Unavailable, "telling that a label changes: %w", err)
	}
	err = do()
	if told := l.changes.Put(uint32(0), n+1); told != nil {
		err = errors.Join(err, xos.Errorf(xos.Unavailable, "telling that a label has changed: %w", told))
	}
	return err
}

// close gives up the descriptors.
func (l *labels) close() error {
	err := l.names.close()
	if l.changes != nil {
		err = errors.Join(err, l.changes.Close())
	}
	return err
}

// useNone ends that: this kernel has no programs that would heed it.
func (l *labels) useNone() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cgroups, l.tallies = nil, nil
}

// relabel labels all cgroups that are there, and forgets those that are not.
func (l *labels) relabel() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	present := map[uint64]bool{}
	var errs []error
	dirs, err := filepath.Glob(filepath.Join(l.root, l.subtree, "vo-*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		vo := xos.VOName(strings.TrimPrefix(filepath.Base(dir), "vo-"))
		if !xos.ValidName(string(vo)) {
			continue
		}
		num, err := l.known(vo)
		if err == nil {
			var id uint64
			id, err = l.put(dir, bpf.LsmXosCgroup{Vo: num})
			present[id] = true
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		jobs, _ := filepath.Glob(filepath.Join(dir, "job-*"))
		for _, dir := range jobs {
			if err := l.remember(dir, xos.JobID(strings.TrimPrefix(filepath.Base(dir), "job-"))); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	clear(l.slices)
	dirs, err = filepath.Glob(filepath.Join(l.slicesDir(), "user-*.slice"))
	errs = append(errs, err)
	for _, dir := range dirs {
		errs = append(errs, l.slice(dir))
	}
	for _, id := range l.slices {
		present[id] = true
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, l.forget(present))
	}
	return errors.Join(errs...)
}

// forget takes away the labels of cgroups that are not present. l.mu is held.
func (l *labels) forget(present map[uint64]bool) error {
	var gone []uint64
	var id uint64
	var whose bpf.LsmXosCgroup
	all := l.cgroups.Iterate()
	for all.Next(&id, &whose) {
		if !present[id] {
			gone = append(gone, id)
		}
	}
	if err := all.Err(); err != nil {
		return xos.Errorf(xos.Unavailable, "listing labelled cgroups: %w", err)
	}
	if len(gone) == 0 {
		return nil
	}
	return l.change(func() error {
		for _, id := range gone {
			if err := l.cgroups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return xos.Errorf(xos.Unavailable, "forgetting a cgroup: %w", err)
			}
		}
		return nil
	})
}

// slicesDir is where systemd makes the cgroups of users' logins.
func (l *labels) slicesDir() string { return filepath.Join(l.root, "user.slice") }

// slice labels the cgroup of a grid user's logins as her uid is. One that is
// not there, or whose uid has no label yet, is none; l.mu is held.
func (l *labels) slice(dir string) error {
	text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "user-"), ".slice")
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil || l.cgroups == nil || uint32(uid) < session.FirstID || uint32(uid) > session.LastID {
		return nil
	}
	var num uint32
	if err := l.uids.Lookup(uint32(uid), &num); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	} else if err != nil {
		return xos.Errorf(xos.Unavailable, "looking up the label of uid %d: %w", uid, err)
	}
	id, err := l.put(dir, bpf.LsmXosCgroup{Vo: num, Logins: 1})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err == nil {
		l.slices[dir] = id
	}
	return err
}

// put labels a directory of the cgroup file system.
func (l *labels) put(dir string, whose bpf.LsmXosCgroup) (id uint64, err error) {
	if id, err = cgroupID(dir); err != nil {
		return 0, err
	}
	var has bpf.LsmXosCgroup
	if err := l.cgroups.Lookup(id, &has); err == nil && has == whose {
		return id, nil
	}
	if err := l.change(func() error { return l.cgroups.Put(id, whose) }); err != nil {
		return 0, xos.Errorf(xos.Unavailable, "labelling cgroup %s: %w", dir, err)
	}
	return id, nil
}

// cgroupID is a cgroup's number, its directory's inode's: never given twice.
func cgroupID(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return st.Ino, nil
}

// made and gone tell of a cgroup below slicesDir.
func (l *labels) made(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slice(filepath.Join(l.slicesDir(), name))
}

func (l *labels) gone(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := filepath.Join(l.slicesDir(), name)
	if id, ok := l.slices[dir]; ok {
		l.cgroups.Delete(id)
		delete(l.slices, dir)
	}
}

// account names what a program told by number: false for a uid that this
// process never labelled.
func (l *labels) account(uid uint32) (xos.Account, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.accounts[uid]
	return a, ok
}

// jobOf names the job of a cgroup, "" where there is none.
func (l *labels) jobOf(cgroup uint64) xos.JobID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.jobs[cgroup].job
}
