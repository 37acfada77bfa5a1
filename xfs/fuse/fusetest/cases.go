// Package fusetest holds what a user expects of a file system, as cases that
// run in any directory: each is what people and programs really do there.
package fusetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/need"
)

// Cases are the cases by name. Each gets an empty directory of its own.
var Cases = map[string]func(t *testing.T, dir string){
	"git clone with history":   gitClone,
	"tar and back":             tarRoundTrip,
	"C build":                  cBuild,
	"move":                     move,
	"symbolic link":            symlink,
	"hard link":                hardLink,
	"mode and times":           modeAndTimes,
	"sparse file":              sparse,
	"mmap":                     mapped,
	"rename over an open file": renameOverOpen,
	"unlinked but open":        unlinkedOpen,
	"append by two processes":  appendByTwo,
	"truncate":                 truncate,
	"many names":               manyNames,
	"extended attributes":      xattrs,
	"long names":               longNames,
	"locks":                    locks,
	"statfs":                   statfs,
	"random operations":        randomOperations,
}

// run runs a command in dir and gives its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sources makes a tree of files elsewhere and gives its directory.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 60 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d/e%d", i%7, i%3))
		check(t, os.MkdirAll(sub, 0o755))
		write(t, filepath.Join(sub, fmt.Sprintf("f%d.c", i)), strings.Repeat(fmt.Sprintf("/* %d */\n", i), i*i))
	}
	check(t, os.Symlink("d1", filepath.Join(dir, "link")))
	check(t, os.Chmod(filepath.Join(dir, "d0/e0/f0.c"), 0o755))
	return dir
}

func gitClone(t *testing.T, dir string) {
	need.Command(t, "git")
	origin := sources(t)
	run(t, origin, "git", "init", "-q")
	for i := range 5 {
		write(t, filepath.Join(origin, "d1/history"), fmt.Sprint(i))
		run(t, origin, "git", "add", "-A")
		run(t, origin, "git", "commit", "-qm", fmt.Sprint("change ", i))
	}
	run(t, dir, "git", "clone", "-q", "--no-hardlinks", origin, "clone")
	clone := filepath.Join(dir, "clone")
	run(t, clone, "git", "fsck", "--strict")
	if out := run(t, clone, "git", "status", "--porcelain"); out != "" {
		t.Errorf("a fresh clone has changes:\n%s", out)
	}
	if n := strings.Count(run(t, clone, "git", "log", "--oneline"), "\n"); n != 5 {
		t.Errorf("%d commits", n)
	}
	write(t, filepath.Join(clone, "d1/history"), "here")
	run(t, clone, "git", "commit", "-qam", "here")
	run(t, clone, "git", "checkout", "-q", "HEAD~3")
	run(t, clone, "git", "gc", "-q")
	run(t, clone, "git", "fsck", "--strict")
}

func tarRoundTrip(t *testing.T, dir string) {
	src := sources(t)
	run(t, dir, "sh", "-c", "tar -C "+src+" -cf in.tar . && mkdir out && tar -C out -xpf in.tar && tar -C out -cf out.tar . && mkdir again && tar -C again -xpf out.tar")
	run(t, dir, "diff", "-r", src, "again")
	info, err := os.Stat(filepath.Join(dir, "again/d0/e0/f0.c"))
	check(t, err)
	if info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v", info.Mode())
	}
}

func cBuild(t *testing.T, dir string) {
	need.Command(t, "gcc")
	write(t, filepath.Join(dir, "a.h"), "int f(int);\n")
	write(t, filepath.Join(dir, "a.c"), "#include \"a.h\"\nint f(int x) { return x * 2; }\n")
	write(t, filepath.Join(dir, "m.c"), "#include <stdio.h>\n#include \"a.h\"\nint main(void) { printf(\"%d\\n\", f(21)); return 0; }\n")
	write(t, filepath.Join(dir, "Makefile"), "m: m.o a.o\n\tgcc -o m m.o a.o\n%.o: %.c a.h\n\tgcc -g -O2 -c -o $@ $<\n")
	run(t, dir, "make", "-j2")
	if out := run(t, dir, "./m"); out != "42\n" {
		t.Errorf("the program said %q", out)
	}
	if out := run(t, dir, "make"); !strings.Contains(out, "up to date") {
		t.Errorf("make built again: %s", out)
	}
}

func move(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	check(t, os.MkdirAll(filepath.Join(a, "deep/er"), 0o755))
	write(t, filepath.Join(a, "deep/er/f"), "x")
	check(t, os.Rename(a, b))
	if read(t, filepath.Join(b, "deep/er/f")) != "x" {
		t.Error("content changed")
	}
	if err := os.Rename(b, filepath.Join(b, "deep/b")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a directory into itself: %v", err)
	}
	check(t, os.Mkdir(a, 0o755))
	check(t, unix.Rename(b+"/deep", a)) // over an empty directory
	if err := unix.Rename(b, a); !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		t.Errorf("over a full directory: %v", err)
	}
	write(t, filepath.Join(dir, "f"), "1")
	write(t, filepath.Join(dir, "g"), "2")
	f, g := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	if err := unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_NOREPLACE); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("no replacing: %v", err)
	}
	check(t, unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_EXCHANGE))
	if read(t, f)+read(t, g) != "21" {
		t.Error("not exchanged")
	}
	if err := os.Remove(a); err == nil {
		t.Error("a full directory was removed")
	}
	check(t, os.RemoveAll(a))
}

func symlink(t *testing.T, dir string) {
	l := filepath.Join(dir, "l")
	check(t, os.Symlink("target", l))
	write(t, filepath.Join(dir, "target"), "x")
	if s, err := os.Readlink(l); err != nil || s != "target" {
		t.Errorf("%q, %v", s, err)
	}
	if read(t, l) != "x" {
		t.Error("not followed")
	}
	long := strings.Repeat("x", 4000)
	check(t, os.Symlink(long, filepath.Join(dir, "long")))
	if s, err := os.Readlink(filepath.Join(dir, "long")); err != nil || s != long {
		t.Errorf("a long target: %v", err)
	}
}

func hardLink(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "x")
	check(t, os.Link(a, b))
	write(t, b, "y")
	if read(t, a) != "y" {
		t.Error("two files")
	}
	nlink := func(p string) uint64 {
		var st syscall.Stat_t
		check(t, syscall.Stat(p, &st))
		return uint64(st.Nlink)
	}
	if nlink(a) != 2 {
		t.Errorf("%d links", nlink(a))
	}
	check(t, os.Remove(a))
	if read(t, b) != "y" || nlink(b) != 1 {
		t.Errorf("after removing one name: %q, %d links", read(t, b), nlink(b))
	}
}

func modeAndTimes(t *testing.T, dir string) {
	f := filepath.Join(dir, "f")
	write(t, f, "x")
	check(t, os.Chmod(f, 0o640))
	when := time.Unix(1234567890, 123456789)
	check(t, os.Chtimes(f, when, when))
	info, err := os.Stat(f)
	check(t, err)
	if info.Mode().Perm() != 0o640 || !info.ModTime().Equal(when) {
		t.Errorf("%v %v", info.Mode(), info.ModTime())
	}
	before := time.Now().Add(-time.Minute)
	write(t, f, "xy")
	info, err = os.Stat(f)
	check(t, err)
	if info.ModTime().Before(before) || info.Size() != 2 {
		t.Errorf("after writing: %v, %d bytes", info.ModTime(), info.Size())
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
		t.Errorf("owned by %d:%d", st.Uid, st.Gid)
	}
}

func sparse(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "f"))
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("end"), 10<<20)
	check(t, err)
	_, err = f.WriteAt([]byte("mid"), 5<<20+7)
	check(t, err)
	check(t, f.Sync())
	want := make([]byte, 10<<20+3)
	copy(want[10<<20:], "end")
	copy(want[5<<20+7:], "mid")
	if got := read(t, f.Name()); got != string(want) {
		t.Errorf("%d bytes, not what was written", len(got))
	}
	check(t, f.Truncate(20<<20))
	if got := read(t, f.Name()); len(got) != 20<<20 || strings.Trim(got[10<<20+3:], "\x00") != "" {
		t.Error("extended with something else than zeros")
	}
}

func mapped(t *testing.T, dir string) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	path := filepath.Join(dir, "f")
	check(t, os.WriteFile(path, want, 0o644))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	m, err := syscall.Mmap(int(f.Fd()), 0, len(want), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check(t, err)
	if !bytes.Equal(m, want) {
		t.Error("mapped something else")
	}
	copy(m[100000:], "mapped")
	check(t, unix.Msync(m, unix.MS_SYNC))
	check(t, syscall.Munmap(m))
	copy(want[100000:], "mapped")
	if read(t, path) != string(want) {
		t.Error("what was written by mapping is not in the file")
	}
}

func renameOverOpen(t *testing.T, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "old")
	f, err := os.Open(a)
	check(t, err)
	defer f.Close()
	write(t, b, "new")
	check(t, os.Rename(b, a))
	buf := make([]byte, 10)
	n, _ := f.ReadAt(buf, 0)
	if string(buf[:n]) != "old" || read(t, a) != "new" {
		t.Errorf("open file has %q, name has %q", buf[:n], read(t, a))
	}
}

func unlinkedOpen(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "f"))
	check(t, err)
	check(t, os.Remove(f.Name()))
	_, err = f.WriteAt([]byte("still here"), 3<<20)
	check(t, err)
	check(t, f.Sync())
	buf := make([]byte, 10)
	_, err = f.ReadAt(buf, 3<<20)
	check(t, err)
	if string(buf) != "still here" {
		t.Errorf("read %q", buf)
	}
	check(t, f.Close())
	left, err := os.ReadDir(dir)
	check(t, err)
	if len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func appendByTwo(t *testing.T, dir string) {
	path := filepath.Join(dir, "log")
	script := "for i in $(seq 200); do echo $0-$i-xxxxxxxxxxxxxxxxxxxxxxxx >> '" + path + "'; done"
	one, two := exec.Command("sh", "-c", script, "one"), exec.Command("sh", "-c", script, "two")
	check(t, one.Start())
	check(t, two.Start())
	check(t, errors.Join(one.Wait(), two.Wait()))
	lines := strings.Split(strings.TrimSpace(read(t, path)), "\n")
	seen := map[string]bool{}
	for _, l := range lines {
		if !strings.HasSuffix(l, "-xxxxxxxxxxxxxxxxxxxxxxxx") || strings.Count(l, "-") != 2 {
			t.Fatalf("a torn line: %q", l)
		}
		seen[l] = true
	}
	if len(seen) != 400 || len(lines) != 400 {
		t.Errorf("%d lines, %d of them different; want 400", len(lines), len(seen))
	}
}

func truncate(t *testing.T, dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o644)
	check(t, err)
	defer f.Close()
	_, err = f.Write(bytes.Repeat([]byte("x"), 200000))
	check(t, err)
	check(t, f.Truncate(70000)) // with dirty data behind the cut
	check(t, f.Truncate(150000))
	want := append(bytes.Repeat([]byte("x"), 70000), make([]byte, 80000)...)
	if read(t, f.Name()) != string(want) {
		t.Error("what was cut off came back")
	}
	check(t, f.Sync())
	if read(t, f.Name()) != string(want) {
		t.Error("after sync: what was cut off came back")
	}
	write(t, f.Name(), "short") // O_TRUNC
	if read(t, f.Name()) != "short" {
		t.Errorf("read %d bytes", len(read(t, f.Name())))
	}
}

func manyNames(t *testing.T, dir string) {
	const n = 2000
	for i := range n {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%04d", i)), nil, 0o644))
	}
	d, err := os.Open(dir)
	check(t, err)
	defer d.Close()
	seen := map[string]int{}
	for i := 0; ; i++ {
		names, err := d.Readdirnames(100)
		for _, name := range names {
			seen[name]++
		}
		if err != nil {
			break
		}
		// What is made and removed meanwhile may show or not; all else must.
		tmp := filepath.Join(dir, fmt.Sprintf("tmp-%d", i))
		check(t, os.WriteFile(tmp, nil, 0o644))
		check(t, os.Remove(tmp))
	}
	for i := range n {
		if c := seen[fmt.Sprintf("file-%04d", i)]; c != 1 {
			t.Fatalf("file-%04d was listed %d times", i, c)
		}
	}
}

func xattrs(t *testing.T, dir string) {
	f := filepath.Join(dir, "f")
	write(t, f, "x")
	check(t, unix.Setxattr(f, "user.colour", []byte("blue"), 0))
	check(t, unix.Setxattr(f, "user.empty", nil, 0))
	if err := unix.Setxattr(f, "user.colour", []byte("red"), unix.XATTR_CREATE); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("create over another: %v", err)
	}
	buf := make([]byte, 100)
	n, err := unix.Getxattr(f, "user.colour", buf)
	if err != nil || string(buf[:n]) != "blue" {
		t.Errorf("%q, %v", buf[:max(n, 0)], err)
	}
	n, err = unix.Listxattr(f, buf)
	check(t, err)
	names := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	if strings.Join(names, " ") != "user.colour user.empty" {
		t.Errorf("listed %q", names)
	}
	check(t, unix.Removexattr(f, "user.colour"))
	if _, err := unix.Getxattr(f, "user.colour", buf); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("after removal: %v", err)
	}
	if err := unix.Setxattr(f, "trusted.x", []byte("x"), 0); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("another namespace: %v", err)
	}
}

func longNames(t *testing.T, dir string) {
	ok := filepath.Join(dir, strings.Repeat("n", 255))
	write(t, ok, "x")
	if read(t, ok) != "x" {
		t.Error("content of a long name")
	}
	if err := os.WriteFile(filepath.Join(dir, strings.Repeat("n", 256)), nil, 0o644); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("256 bytes: %v", err)
	}
	odd := filepath.Join(dir, "späce \n\t\"\\ \xff")
	write(t, odd, "x")
	check(t, os.Remove(odd))
}

func locks(t *testing.T, dir string) {
	need.Command(t, "flock")
	path := filepath.Join(dir, "lock")
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	if err := exec.Command("flock", "-n", path, "true").Run(); err == nil {
		t.Error("two processes hold one lock")
	}
	check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
	run(t, dir, "flock", "-n", path, "true")
}

func statfs(t *testing.T, dir string) {
	var st syscall.Statfs_t
	check(t, syscall.Statfs(dir, &st))
	if st.Blocks == 0 || st.Bfree > st.Blocks || st.Namelen != 255 {
		t.Errorf("%+v", st)
	}
}
