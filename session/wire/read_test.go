package wire

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/test/need"
)

// physics is a VO with many users, in and out of a group.
func physics(users int) Snapshot {
	s := Snapshot{VO: "physics", Generation: 7, GID: firstID, Groups: []SnapshotGroup{{"physics", firstID}, {"physics:higgs", firstID + 1}}}
	for i := range uint32(users) {
		name := fmt.Sprintf("user%d@physics", i)
		groups := []uint32{firstID}
		if i%3 == 0 {
			groups = append(groups, firstID+1)
		}
		id := firstID + 100 + i*7
		s.Users = append(s.Users, SnapshotUser{Passwd{name, id, id, name, "/home/xos/physics/" + name, "/bin/bash"}, groups})
	}
	return s
}

func opened(tb testing.TB, s Snapshot) *SnapshotFile {
	tb.Helper()
	b, err := s.encode()
	if err != nil {
		tb.Fatal(err)
	}
	f, err := readSnapshot(bytes.NewReader(b), int64(len(b)), s.VO)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// TestSnapshotIsRead: what was written is found, by name and id, and nothing else.
func TestSnapshotIsRead(t *testing.T) {
	for _, users := range []int{0, 1, 2000} {
		s := physics(users)
		f := opened(t, s)
		for _, u := range s.Users {
			for by, find := range map[string]func() (Record, error){
				"name": func() (Record, error) { return f.Named(u.Name) }, "uid": func() (Record, error) { return f.Numbered(u.UID) },
			} {
				r, err := find()
				if err != nil || r.Group != nil || cmp.Diff(&u, r.User) != "" {
					t.Fatalf("%s by %s: %+v, %v", u.Name, by, r, err)
				}
			}
		}
		for _, g := range s.Groups {
			r, err := f.Named(g.Name)
			if r2, err2 := f.Numbered(g.GID); err != nil || err2 != nil || r.Group == nil || cmp.Diff(r, r2) != "" || r.ID() != g.GID {
				t.Fatalf("%s: %+v, %v; %+v, %v", g.Name, r, err, r2, err2)
			}
			if g.Name == "physics" && len(r.Group.Members) != users {
				t.Errorf("%s has %d members, want %d", g.Name, len(r.Group.Members), users)
			}
		}
		for _, name := range []string{"", "nobody@physics", "physics:none", "user0@chemistry", "user0"} {
			if r, err := f.Named(name); xos.KindOf(err) != xos.NotFound {
				t.Errorf("%q: %+v, %v", name, r, err)
			}
		}
		for _, id := range []uint32{0, 1, firstID + 2, lastID, 1<<32 - 1} {
			if r, err := f.Numbered(id); xos.KindOf(err) != xos.NotFound {
				t.Errorf("%d: %+v, %v", id, r, err)
			}
		}
	}
}

// TestSnapshotOfAnother: a file that is another VO's, of another format or not
// whole is not read.
func TestSnapshotOfAnother(t *testing.T) {
	good, err := physics(3).encode()
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"empty": nil, "only a header": good[:snapHeader], "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0),
		"magic": changed(0, 'Y'), "version": changed(8, 2), "slots": changed(32, 3), "no slots": changed(32, 0),
		"index outside": changed(39, 0xff), "name": changed(48, 'q'), "name's length": changed(44, 255),
	} {
		if f, err := readSnapshot(bytes.NewReader(b), int64(len(b)), "physics"); xos.KindOf(err) != xos.Internal {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := readSnapshot(bytes.NewReader(good), int64(len(good)), "chemistry"); xos.KindOf(err) != xos.Internal {
		t.Error("another VO's snapshot is read:", err)
	}
}

// TestRootSnapshotFile: a snapshot's file must be root's alone to write.
func TestRootSnapshotFile(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := WriteSnapshot(dir, physics(1)); err != nil {
		t.Fatal(err)
	}
	path := SnapshotPath(dir, "physics")
	try := func(what string, want xos.Kind) {
		t.Helper()
		f, err := OpenSnapshot(dir, "physics")
		if err == nil {
			f.Close()
		}
		if err == nil || xos.KindOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	f, err := OpenSnapshot(dir, "physics")
	if err != nil || f.GID != firstID {
		t.Fatal(f, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string][2]func() error{
		"the group's to write": {func() error { return os.Chmod(path, 0o660) }, func() error { return os.Chmod(path, 0o640) }},
		"a user's":             {func() error { return os.Chown(path, 4711, firstID) }, func() error { return os.Chown(path, 0, firstID) }},
	} {
		if err := change[0](); err != nil {
			t.Fatal(err)
		}
		try(name, xos.Internal)
		if err := change[1](); err != nil {
			t.Fatal(err)
		}
	}
	vos, err := SnapshotVOs(dir)
	if err != nil || cmp.Diff([]xos.VOName{"physics"}, vos) != "" {
		t.Error(vos, err)
	}
	os.Rename(path, filepath.Join(dir, "aside"))
	try("gone", xos.NotFound)
	os.Symlink(filepath.Join(dir, "aside"), path)
	try("a link", xos.Unavailable)
	if vos, err := SnapshotVOs(filepath.Join(dir, "none")); vos != nil || err != nil {
		t.Error(vos, err)
	}
}

// FuzzSnapshotFile: whatever a file has in it, it speaks for its own VO and of
// the grid's ids only, and for who was asked for.
func FuzzSnapshotFile(f *testing.F) {
	for _, users := range []int{0, 1, 5} {
		b, err := physics(users).encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "user0@physics", firstID+uint32(100))
		f.Add(b[:len(b)-3], "physics", uint32(firstID))
	}
	for _, b := range corpus(f, "snapshot") {
		f.Add(b, "alice@physics", uint32(1879050001))
		f.Add(b, "physics:higgs", uint32(1900000000))
		f.Add(b, "bob@physics", uint32(1879050002))
	}
	f.Fuzz(func(t *testing.T, b []byte, name string, id uint32) {
		s, err := readPair(b)
		if err != nil {
			return
		}
		for _, find := range []func() (Record, error){
			func() (Record, error) { return s.Named(name) }, func() (Record, error) { return s.Numbered(id) },
		} {
			r, err := find()
			if err != nil {
				continue
			}
			if r.Name() != name && r.ID() != id || r.ID() < firstID || r.ID() > lastID {
				t.Fatalf("%q, %d: found %+v", name, id, r)
			}
			a, err := xos.ParseAccount(r.Name())
			if r.User != nil && (err != nil || a.VO != "physics") || r.Group != nil && r.Name() != "physics" && !strings.HasPrefix(r.Name(), "physics:") {
				t.Fatalf("%q, %d: another VO's %+v", name, id, r)
			}
		}
	})
}
