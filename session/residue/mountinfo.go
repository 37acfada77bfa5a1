package residue

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountPoint is a line of proc_pid_mountinfo(5).
type mountPoint struct {
	id      uint64
	device  string // major:minor
	root    string // within the file system
	path    string // in its mount namespace
	options string // of the mount and of the file system
	kind    string // "ext4", "fuse.xosfs"
	source  string
}

// parseMounts reads a mountinfo; lines that are none are left out and told by ok.
func parseMounts(data string) (all []mountPoint, ok bool) {
	ok = true
	for line := range strings.Lines(data) {
		head, tail, cut := strings.Cut(strings.TrimRight(line, "\n"), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !cut || len(h) < 6 || len(t) < 2 {
			ok = false
			continue
		}
		id, err := strconv.ParseUint(h[0], 10, 64)
		if err != nil {
			ok = false
			continue
		}
		m := mountPoint{id: id, device: h[2], root: unescape(h[3]), path: unescape(h[4]), options: h[5], kind: t[0], source: unescape(t[1])}
		if len(t) > 2 {
			m.options += "," + t[2]
		}
		all = append(all, m)
	}
	return all, ok
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// File systems that hold no files of local owners, and why.
const (
	byKernel = "made by the kernel as it is read"
	byServer = "a volume of a server's or of a FUSE process: its owners are not local ids"
	readOnly = "cannot be written"
)

var notWalked = map[string]string{
	"proc": byKernel, "sysfs": byKernel, "cgroup": "looked at as cgroups", "cgroup2": "looked at as cgroups", "debugfs": byKernel,
	"tracefs": byKernel, "securityfs": byKernel, "pstore": byKernel, "efivarfs": byKernel, "configfs": byKernel, "binfmt_misc": byKernel,
	"fusectl": byKernel, "autofs": byKernel, "nsfs": byKernel, "rpc_pipefs": byKernel, "selinuxfs": byKernel, "mqueue": "looked at as message queues",
	"nfs": byServer, "nfs4": byServer, "nfsd": byKernel, "cifs": byServer, "smb3": byServer, "smbfs": byServer, "ceph": byServer, "afs": byServer, "9p": byServer,
	"lustre": byServer, "beegfs": byServer, "gpfs": byServer, "orangefs": byServer, "glusterfs": byServer, "virtiofs": byServer, "fuse": byServer,
	"squashfs": readOnly, "iso9660": readOnly, "erofs": readOnly, "cramfs": readOnly, "romfs": readOnly,
}

// reason says why a file system is not walked; "" means that it is.
func reason(kind string) string {
	if strings.HasPrefix(kind, "fuse.") {
		return byServer
	}
	return notWalked[kind]
}

// system is a file system, or a part of one, to walk.
type system struct {
	mountPoint
	pid string // of a process in whose mount namespace it is; "self": ours
}

// systems gives what to walk: of each file system that any process has
// mounted, the parts that are to be reached, none of them twice.
func (s *search) systems() []system {
	all, _ := pids()
	spaces := map[string]bool{}
	var out []system
	for _, pid := range append([]string{"self"}, all...) {
		name, err := os.Readlink("/proc/" + pid + "/ns/mnt")
		if err != nil || spaces[name] {
			continue
		}
		data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
		if err != nil {
			if !gone(err) {
				s.blind(File, "mounts of process "+pid, err)
			}
			continue
		}
		if len(data) == 0 {
			continue // it is ending
		}
		spaces[name] = true
		mounts, ok := parseMounts(string(data))
		if !ok {
			s.blind(File, "mounts of process "+pid, errMountinfo)
		}
		for _, m := range mounts {
			if why := reason(m.kind); why != "" {
				if why == byServer {
					s.skip(File, m.kind+" "+m.path, why)
				}
				continue
			}
			out = append(out, system{m, pid})
		}
	}
	return out
}

type textError string

func (e textError) Error() string { return string(e) }

const errMountinfo textError = "a line of mountinfo is not understood"

// covers reports whether the part of a file system below root a has b in it.
func covers(a, b string) bool {
	return a == b || a == "/" || strings.HasPrefix(b, a+"/")
}

// mounts looks for mounts of the names' homes, and for those made with an id:
// a runtime directory's tmpfs, a FUSE mount of the user's own.
func (s *search) mounts() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.blind(Mount, "/proc/self/mountinfo", err)
		return
	}
	mounts, _ := parseMounts(string(data))
	for _, m := range mounts {
		s.saw(Mount)
		for name, id := range s.names {
			user, vo, _ := strings.Cut(name, "@")
			if s.cfg.Homes != "" && m.path == filepath.Join(s.cfg.Homes, vo, user) {
				s.found(id, Mount, m.path, "home")
			}
		}
		s.mentions(m.options, func(id uint32, word string) { s.found(id, Mount, m.path, "option with "+word) })
		s.mentions(m.path, func(id uint32, word string) { s.found(id, Mount, m.path, "named after "+word) })
	}
}
