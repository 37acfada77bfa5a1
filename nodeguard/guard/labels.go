package guard

import (
	"errors"
	"hash/fnv"
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

	mu       sync.Mutex
	cgroups  *ebpf.Map             // nil without LSM programs
	vos      map[uint32]xos.VOName // those labelled by this process, by number
	accounts map[uint32]xos.Account
	slices   map[string]uint64 // labelled cgroups of logins, with their ids
}

func newLabels(uids *ebpf.Map, root, subtree string) *labels {
	return &labels{root: root, subtree: subtree, uids: uids, vos: map[uint32]xos.VOName{}, accounts: map[uint32]xos.Account{}, slices: map[string]uint64{}}
}

// number gives a VO its label: a 32-bit hash of its name, so that it needs no
// table that must survive. Two of a machine's VOs with one number would be one
// VO to the programs, so known refuses the second. The numbers that mean
// "nobody's" are no VO's.
func number(vo xos.VOName) uint32 {
	h := fnv.New32a()
	h.Write([]byte(vo))
	return min(max(h.Sum32(), 1), 1<<32-2)
}

// known gives a VO's number, and remembers whose it is. l.mu is held.
func (l *labels) known(vo xos.VOName) (uint32, error) {
	num := number(vo)
	if other, ok := l.vos[num]; ok && other != vo {
		return 0, xos.Errorf(xos.Conflict, "the BPF programs cannot tell VO %s from VO %s", vo, other).WithHint("rename one of them")
	}
	l.vos[num] = vo
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
	if err := l.uids.Put(uid, num); err != nil {
		return xos.Errorf(xos.Unavailable, "labelling uid %d with VO %s: %w", uid, a.VO, err)
	}
	l.accounts[uid] = a
	return l.slice(filepath.Join(l.slicesDir(), "user-"+strconv.FormatUint(uint64(uid), 10)+".slice"))
}

// cgroup labels the cgroup of a VO's jobs, which path names from the root.
func (l *labels) cgroup(path string, vo xos.VOName) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	num, err := l.known(vo)
	if err != nil || l.cgroups == nil {
		return err
	}
	_, err = l.put(filepath.Join(l.root, path), bpf.LsmXosCgroup{Vo: num})
	return err
}

// useCgroups starts to label cgroups, with those that are there.
func (l *labels) useCgroups(m *ebpf.Map) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cgroups = m
	dirs, err := filepath.Glob(filepath.Join(l.root, l.subtree, "vo-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		vo := xos.VOName(strings.TrimPrefix(filepath.Base(dir), "vo-"))
		if !xos.ValidName(string(vo)) {
			continue
		}
		num, err := l.known(vo)
		if err == nil {
			_, err = l.put(dir, bpf.LsmXosCgroup{Vo: num})
		}
		errs = append(errs, err)
	}
	dirs, err = filepath.Glob(filepath.Join(l.slicesDir(), "user-*.slice"))
	errs = append(errs, err)
	for _, dir := range dirs {
		errs = append(errs, l.slice(dir))
	}
	return errors.Join(errs...)
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

// put labels a directory of the cgroup file system, whose inode number is the
// cgroup's id: never given twice.
func (l *labels) put(dir string, whose bpf.LsmXosCgroup) (id uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := l.cgroups.Put(st.Ino, whose); err != nil {
		return 0, xos.Errorf(xos.Unavailable, "labelling cgroup %s: %w", dir, err)
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

// vo and account name what a program told by number: "" and false for those
// that this process never labelled.
func (l *labels) vo(num uint32) xos.VOName {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.vos[num]
}

func (l *labels) account(uid uint32) (xos.Account, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.accounts[uid]
	return a, ok
}
