package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/test/testbed"
)

//go:embed testdata/names.c testdata/constant.c testdata/names.sh
var namesSources embed.FS

// peers are the packages of other sources of users to compare with, beside what
// every node of a grid has.
var peers = []string{"sssd-common", "sssd-proxy", "libnss-sss"}

const (
	passwdLines = 25
	// passwdLast is the last of them, whose name is as long as the grid users'.
	passwdLast = "local-account-13:x:4000:4000:Local:/home/local-account-13:/bin/bash"
	nobody     = "no-such-account1"
)

// vo is a VO with users that have uids here.
type vo struct {
	name  xos.VOName
	gid   uint32
	first uint32 // uid
	users int
}

var (
	small = vo{"physics", session.FirstID + 1, session.FirstID + 1000, 1}
	large = vo{"biology", session.FirstID + 2, session.FirstID + 2000, 100_000}
)

func (v vo) user(i int) string  { return fmt.Sprintf("u%07d@%s", i, v.name) }
func (v vo) middle() int        { return v.users / 2 }
func (v vo) member() (u, g int) { return int(v.first) + v.middle(), int(v.gid) }

func (v vo) publish(p *wire.Publisher) error {
	return p.Publish(v.name, func() (wire.Whole, error) {
		return wire.Whole{VO: v.name, GID: v.gid, Groups: []wire.SnapshotGroup{{Name: string(v.name), GID: v.gid}},
			Len: v.users, User: func(i int) wire.SnapshotUser {
				name, id := v.user(i), v.first+uint32(i)
				return wire.SnapshotUser{Groups: []uint32{v.gid},
					Passwd: wire.Passwd{Name: name, UID: id, GID: id, Gecos: "Grid", Dir: "/home/xos/" + string(v.name) + "/" + name, Shell: "/bin/bash"}}
			}}, nil
	})
}

// source is a place where users are looked up.
type source struct {
	name     string // its figure is nss_NAME_ns
	services string // of nsswitch.conf; or "=xos", the module's function alone
	key      string // a name or uid; with '!' one that must not be found
	uid, gid int    // who looks up
	note     string
}

func (s source) arg() string {
	return fmt.Sprintf("%s,/run/names/passwd,%d,%d,%s", s.services, s.uid, s.gid, s.key)
}

// sources are what is compared; sssd where it is installed.
func sources(withPeers bool) []source {
	uid, gid := small.member()
	luid, lgid := large.member()
	name, lname := small.user(small.middle()), large.user(large.middle())
	local, _, _ := strings.Cut(passwdLast, ":")
	all := []source{
		{"files", "files", local, uid, gid, "the last of a passwd file with 25 lines"},
		{"files_uid", "files", "4000", uid, gid, "by uid"},
		{"snapshot", "xos", name, uid, gid, "by a member of a VO of which one user has a uid"},
		{"snapshot_uid", "xos", strconv.Itoa(uid), uid, gid, "by uid"},
		{"snapshot_100k", "xos", lname, luid, lgid, "of 100,000 users, by a member"},
		{"snapshot_100k_uid", "xos", strconv.Itoa(luid), luid, lgid, "by uid"},
		{"snapshot_root", "xos", name, 0, 0, "by root"},
		{"as_set_up", "files xos systemd", name, uid, gid, "a grid user, behind a passwd file with 25 lines"},
		{"constant", "constant", name, uid, gid, "a module that does nothing but give an answer that it has: no module can be faster"},
		{"module", "=xos", name, uid, gid, "nss_xos without the C library's part"},
		{"foreign_miss", "=xos", "!" + nobody, uid, gid, "nss_xos alone on a name without @: what it adds to lookups that are not its own"},
		{"systemd", "systemd", local, uid, gid, "nss-systemd, a record in /etc/userdb, no userdbd"},
	}
	if withPeers {
		all = append(all, source{"sssd", "sss", local, uid, gid, "sssd's memory cache"})
	}
	return all
}

// names are the figures of namesFigures, as named there.
var names = func() measurement {
	m := measurement{run: lookup}
	for _, r := range namesRatios {
		m.names = append(m.names, r.name)
	}
	for _, c := range sources(true) {
		m.names = append(m.names, "nss_"+c.name+"_ns")
	}
	return m
}()

// lookup measures lookups through the C library in a Debian root of their own,
// in which no daemon runs but sssd's: each source in a process that stays, by
// turns.
func lookup(ctx context.Context, s *stage) ([]figure, error) {
	root, withPeers, err := namesRoot(ctx, s.peers)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "xos-bench-names-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := furnish(ctx, dir); err != nil {
		return nil, err
	}
	all := sources(withPeers)
	args := []string{"--mount", "--pid", "--net", "--fork", "--kill-child", "bash", filepath.Join(dir, "src/names.sh"), root, dir, "21", "20"}
	for _, c := range all {
		args = append(args, c.arg())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, complaint.String())
	}
	t, err := columns(string(out), len(all))
	if err != nil {
		return nil, err
	}
	return namesFigures(all, t), nil
}

// namesRatios are how many times as many lookups a second there are from the
// second source as from the first. The limits are what no module can exceed,
// since the C library's own part is in both: it looks at nsswitch.conf, which is
// a system call and by far the most of a short lookup. Five times files and one
// and a half times sssd are wanted; with glibc 2.41 that is about the limit, and
// the one system call for the caller's ids is more than what is between.
var namesRatios = []struct{ name, theirs, ours string }{
	{"nss_hit_ratio", "files", "snapshot"},
	{"nss_hit_100k_ratio", "files", "snapshot_100k"},
	{"nss_hit_uid_ratio", "files_uid", "snapshot_uid"},
	{"nss_hit_limit_ratio", "files", "constant"},
	{"nss_sssd_ratio", "sssd", "snapshot"},
	{"nss_sssd_limit_ratio", "sssd", "constant"},
	{"nss_systemd_ratio", "systemd", "snapshot"},
}

// namesFigures are the ratios, then how long a lookup took from each source.
func namesFigures(all []source, t [][]float64) (figures []figure) {
	of := func(name string) []float64 {
		return t[slices.IndexFunc(all, func(s source) bool { return s.name == name })]
	}
	against := func(name, theirs, ours string) {
		if slices.ContainsFunc(all, func(s source) bool { return s.name == theirs }) {
			figures = append(figures, ratio(name, of(theirs), of(ours), "ns, of "+theirs+" and "+ours))
		}
	}
	for _, r := range namesRatios {
		against(r.name, r.theirs, r.ours)
	}
	for i, c := range all {
		figures = append(figures, newFigure("nss_"+c.name+"_ns", "ns", t[i], c.note))
	}
	return figures
}

// namesRoot gives the root to measure in, and whether it has the peers.
func namesRoot(ctx context.Context, install bool) (root string, withPeers bool, err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if install || testbed.Trixie.HasRoot(peers...) {
		root, err = testbed.Trixie.Base(ctx, log, os.Stderr, peers...)
		return root, true, err
	}
	fmt.Fprintln(os.Stderr, "without sssd: make bench-names installs it in a Debian root of its own")
	root, err = testbed.Trixie.Base(ctx, log, io.Discard)
	return root, false, err
}

// furnish fills dir with what names.sh takes.
func furnish(ctx context.Context, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"run/nss", "lib", "src"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	p := wire.NewPublisher(filepath.Join(dir, "run/nss"), time.Now)
	for _, v := range []vo{small, large} {
		if err := v.publish(p); err != nil {
			return err
		}
	}
	files, err := namesSources.ReadDir("testdata")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := namesSources.ReadFile("testdata/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "src", f.Name()), b, 0o644); err != nil {
			return err
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/bash\n"
	for i := range passwdLines - 2 {
		passwd += fmt.Sprintf("service-%02d:x:%d:%d:A service of the machine:/var/lib/service-%02d:/usr/sbin/nologin\n", i, 100+i, 100+i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte(passwd+passwdLast+"\n"), 0o644); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "sh", "nss_xos/build.sh", filepath.Join(dir, "lib/libnss_xos.so.2"))
	build.Stderr = os.Stderr
	return build.Run()
}
