package residue

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// largest is how large a text is read in which ids and names are looked for.
const largest = 1 << 20

// mentions finds ids, as numbers, and names in a text, as whole words.
func (s *search) mentions(text string, f func(id uint32, word string)) {
	word := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '@' || c == '.' || c == '-'
	}
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && word(text[j]) {
			j++
		}
		if j == i {
			i++
			continue
		}
		if id, ok := s.names[strings.Trim(text[i:j], ".-")]; ok {
			f(id, text[i:j])
		}
		for k := i; k < j; {
			l := k
			for l < j && text[l] >= '0' && text[l] <= '9' {
				l++
			}
			n, err := strconv.ParseUint(text[k:l], 10, 32)
			if id, ok := s.whose(uint32(n)); err == nil && ok {
				f(id, text[k:l])
			}
			k = max(l, k+1)
		}
		i = j
	}
}

// records looks at what is kept in files by name or by number, whoever owns
// the file.
func (s *search) records(ctx context.Context) {
	s.lastlog()
	s.utmp()
	for _, dir := range []string{"/var/spool/cron/crontabs", "/var/spool/cron"} {
		s.list(Cron, dir, false)
	}
	for _, dir := range []string{"/var/spool/cron/atjobs", "/var/spool/cron/atspool", "/var/spool/at"} {
		s.list(At, dir, true)
	}
	for _, dir := range []string{"/var/lib/systemd/linger", "/run/systemd/users", "/run/systemd/system", "/run/systemd/transient", "/run/systemd/system.control",
		"/etc/systemd/system", "/etc/systemd/system.control"} {
		s.list(Systemd, dir, false)
	}
	for _, name := range []string{"passwd", "group", "subuid", "subgid", "sudoers", "cron.allow", "cron.deny", "at.allow", "at.deny", "crontab", "security/access.conf"} {
		s.text(Etc, filepath.Join("/etc", name))
	}
	for _, dir := range []string{"sudoers.d", "cron.d", "doas.d"} {
		s.list(Etc, filepath.Join("/etc", dir), true)
	}
	if s.cfg.Run != "" {
		for _, dir := range []string{"accounts", "cred", "sessions", "mounts", "jobs"} {
			s.tree(ctx, Own, filepath.Join(s.cfg.Run, dir))
		}
	}
	if s.cfg.State != "" {
		s.tree(ctx, Own, filepath.Join(s.cfg.State, "jobs"))
	}
}

// list looks at the names and owners of what is in a directory; inside too, if
// the files are to be read.
func (s *search) list(k Kind, dir string, inside bool) {
	entries, err := os.ReadDir(dir)
	if err != nil && !gone(err) {
		s.blind(k, dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		s.entry(k, path, e.Name())
		if inside && e.Type().IsRegular() {
			s.text(k, path)
		}
	}
}

func (s *search) entry(k Kind, path, name string) {
	s.saw(k)
	s.mentions(name, func(id uint32, word string) { s.found(id, k, path, "named after "+word) })
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil {
		s.owned(k, path, st.Uid, st.Gid)
	} else if !gone(err) {
		s.blind(k, path, err)
	}
}

// text looks for ids and names in a file.
func (s *search) text(k Kind, path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return // a link: what it leads to is looked at where it is
	}
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, largest+1)); err == nil && len(data) > largest {
			err = textError("it is too large to be read")
		}
		s.saw(k)
		s.mentions(string(data), func(id uint32, word string) { s.found(id, k, path, "mentions "+word) })
	}
	if err != nil && !gone(err) {
		s.blind(k, path, err)
	}
}

// tree looks at names, owners and contents below a directory.
func (s *search) tree(ctx context.Context, k Kind, dir string) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if !gone(err) {
				s.blind(k, path, err)
			}
			return nil
		}
		s.entry(k, path, e.Name())
		if e.Type().IsRegular() {
			s.text(k, path)
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		s.blind(k, dir, err)
	}
}

// lastlogPath holds a record of lastlogSize bytes for each uid, see lastlog(8).
const (
	lastlogPath = "/var/log/lastlog"
	lastlogSize = 292
)

func (s *search) lastlog() {
	f, err := os.Open(lastlogPath)
	if err != nil {
		if !gone(err) {
			s.blind(Login, lastlogPath, err)
		}
		return
	}
	defer f.Close()
	for id := range s.ids {
		s.saw(Login)
		record := make([]byte, lastlogSize)
		n, err := f.ReadAt(record, int64(id)*lastlogSize)
		if err != nil && !errors.Is(err, io.EOF) {
			s.blind(Login, lastlogPath, err)
		}
		if strings.Trim(string(record[:n]), "\x00") != "" {
			s.found(id, Login, lastlogPath, "last login")
		}
	}
}

// utmp looks for logins on record whose process is there, see utmp(5).
func (s *search) utmp() {
	const size, userProcess = 384, 7
	data, err := os.ReadFile("/run/utmp")
	if err != nil {
		if !gone(err) {
			s.blind(Login, "/run/utmp", err)
		}
		return
	}
	for ; len(data) >= size; data = data[size:] {
		if data[0] != userProcess || data[1] != 0 {
			continue
		}
		s.saw(Login)
		user, _, _ := strings.Cut(string(data[44:76]), "\x00")
		pid := int(uint32(data[4]) | uint32(data[5])<<8 | uint32(data[6])<<16 | uint32(data[7])<<24)
		for name, id := range s.names {
			if user == name[:min(len(name), 32)] && unix.Kill(pid, 0) == nil {
				s.found(id, Login, "/run/utmp", "logged in as process "+strconv.Itoa(pid))
			}
		}
	}
}

// cgroups looks at the names and owners of control groups.
func (s *search) cgroups() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.blind(Cgroup, "/proc/self/mountinfo", err)
		return
	}
	mounts, _ := parseMounts(string(data))
	for _, m := range mounts {
		if m.kind != "cgroup" && m.kind != "cgroup2" {
			continue
		}
		filepath.WalkDir(m.path, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil && !gone(err):
				s.blind(Cgroup, path, err)
			case err == nil && e.IsDir():
				s.entry(Cgroup, path, e.Name())
			}
			return nil
		})
	}
}
