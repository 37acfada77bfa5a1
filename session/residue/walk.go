package residue

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// deepest is how deep directories are followed: each level is an open file.
const deepest = 2000

// files walks the files of all systems, on a thread of the lowest priority.
func (s *search) files(ctx context.Context) {
	onThread(func() {
		if s.cfg.Rate >= 0 {
			lowest()
		}
		w := &walk{search: s, rate: s.cfg.Rate, began: time.Now()}
		if w.rate == 0 {
			w.rate = 20000
		}
		all := s.systems()
		// The largest parts first: what they cover is not walked again.
		slices.SortStableFunc(all, func(a, b system) int { return len(a.root) - len(b.root) })
		done := map[string][]string{}
		for _, sys := range all {
			if ctx.Err() != nil {
				return
			}
			if slices.ContainsFunc(done[sys.device], func(root string) bool { return covers(root, sys.root) }) {
				continue
			}
			fd, err := sys.open()
			if gone(err) {
				continue // seen below, if it is still there
			}
			if err != nil {
				s.blind(File, sys.path+" of process "+sys.pid, err)
				continue
			}
			done[sys.device] = append(done[sys.device], sys.root)
			w.system(ctx, fd, sys)
		}
		for _, sys := range all {
			if !slices.ContainsFunc(done[sys.device], func(root string) bool { return covers(root, sys.root) }) && sys.exists() {
				s.blind(File, sys.path+" of process "+sys.pid, errHidden)
			}
		}
		s.looks[File].Seen = max(s.looks[File].Seen, w.count)
	})
}

// lowest gives this thread the lowest priority for processor and disk.
func lowest() {
	const class, idle, who = 13, 3, 1 // IOPRIO_CLASS_SHIFT, _IDLE, IOPRIO_WHO_PROCESS: ioprio_set(2)
	unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	unix.Syscall(unix.SYS_IOPRIO_SET, who, 0, idle<<class)
}

const errHidden textError = "it is below another mount and cannot be reached"

// exists reports whether the mount is still there.
func (sys system) exists() bool {
	data, err := os.ReadFile("/proc/" + sys.pid + "/mountinfo")
	mounts, _ := parseMounts(string(data))
	return err == nil && slices.ContainsFunc(mounts, func(m mountPoint) bool { return m.id == sys.id })
}

// walk is what goes from file to file.
type walk struct {
	*search
	rate  int
	count int
	began time.Time
	plain bool // this file system knows no extended attributes
	names []byte
	value []byte
}

// system walks one file system; it closes fd.
func (w *walk) system(ctx context.Context, fd int, sys system) {
	root := os.NewFile(uintptr(fd), sys.path)
	defer root.Close()
	w.plain, w.names, w.value = false, make([]byte, 64<<10), make([]byte, 64<<10)
	prefix := sys.path
	if sys.pid != "self" {
		prefix = "/proc/" + sys.pid + "/root" + sys.path
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, wanted, &st); err != nil {
		w.blind(File, prefix, err)
		return
	}
	w.file(fd, ".", prefix, &st)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		w.directory(ctx, fd, ".", prefix, 0)
	}
}

const wanted = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID

// directory walks what is in one. What vanishes meanwhile was removed by
// somebody who runs, whom the other looks are about.
func (w *walk) directory(ctx context.Context, at int, name, path string, depth int) {
	if depth > deepest {
		w.blind(File, path, textError("directories are nested too deeply"))
		return
	}
	dir, err := openat(at, name)
	if err != nil {
		if !gone(err) && !errors.Is(err, unix.ELOOP) {
			w.blind(File, path, err)
		}
		return
	}
	defer dir.Close()
	fd := int(dir.Fd())
	for {
		entries, err := dir.Readdirnames(512)
		for _, entry := range entries {
			if ctx.Err() != nil {
				return
			}
			var st unix.Statx_t
			if err := unix.Statx(fd, entry, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, wanted, &st); err != nil {
				if !gone(err) {
					w.blind(File, filepath.Join(path, entry), err)
				}
				continue
			}
			below := path + "/" + entry
			if path == "/" {
				below = path + entry
			}
			w.file(fd, entry, below, &st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				w.directory(ctx, fd, entry, below, depth+1)
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(entries) == 0 {
			return
		}
		if err != nil {
			if !gone(err) {
				w.blind(File, path, err)
			}
			return
		}
	}
}

// file looks at one file.
func (w *walk) file(at int, name, path string, st *unix.Statx_t) {
	w.count++
	if w.count%256 == 0 {
		w.pace()
	}
	user, byUser := w.whose(st.Uid)
	group, byGroup := w.whose(st.Gid)
	if byUser || byGroup {
		what := ""
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			if st.Mode&unix.S_ISUID != 0 {
				what += ", setuid"
			}
			if st.Mode&unix.S_ISGID != 0 {
				what += ", setgid"
			}
		}
		if byUser {
			w.found(user, File, path, as(st.Uid, user, "owner"+what))
		}
		if byGroup {
			w.found(group, File, path, as(st.Gid, group, "group"+what))
		}
	}
	if !w.plain && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.attributes("/proc/self/fd/"+strconv.Itoa(at)+"/"+name, path)
	}
}

// pace keeps to the rate and tells how far it is.
func (w *walk) pace() {
	w.looks[File].Seen = w.count
	if w.cfg.Progress != nil {
		w.cfg.Progress(w.count)
	}
	if w.rate < 0 {
		return
	}
	due := time.Duration(float64(w.count) / float64(w.rate) * float64(time.Second))
	if ahead := due - time.Since(w.began); ahead > 5*time.Millisecond {
		time.Sleep(ahead)
	}
}

// attributes looks at a file's access control lists and capabilities.
func (w *walk) attributes(by, path string) {
	n, err := unix.Llistxattr(by, w.names)
	switch {
	case errors.Is(err, unix.ENOTSUP):
		w.plain = true
		return
	case err != nil:
		if !gone(err) {
			w.blind(File, path, err)
		}
		return
	}
	for _, name := range strings.Split(string(w.names[:n]), "\x00") {
		var read func([]byte) ([]mention, error)
		switch {
		case name == "system.posix_acl_access" || name == "system.posix_acl_default":
			read = decodeACL
		case name == "security.capability":
			read = decodeCapability
		case strings.HasPrefix(name, "system.") && strings.Contains(name, "acl"):
			w.blind(File, path, textError("its access control list is of a kind not known here: "+name))
			continue
		default:
			continue
		}
		size, err := unix.Lgetxattr(by, name, w.value)
		if err != nil {
			if !gone(err) && !errors.Is(err, unix.ENODATA) {
				w.blind(File, path, err)
			}
			continue
		}
		mentions, err := read(w.value[:size])
		if err != nil {
			w.blind(File, path, err)
		}
		for _, m := range mentions {
			if id, ok := w.whose(m.id); ok {
				w.found(id, File, path, as(m.id, id, m.as))
			}
		}
	}
}
