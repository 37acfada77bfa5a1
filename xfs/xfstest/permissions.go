package xfstest

import (
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// As gives a volume as a member of physics sees it, who is in the groups named.
type As func(account string, groups ...xos.GroupName) xfs.MRC

// RunPermissions runs the suite of access by grid identity. open gives an
// empty volume of alice@physics, who is in no group.
func RunPermissions(t *testing.T, open func(t *testing.T) As) {
	for name, f := range map[string]func(*testing.T, As){
		"Classes":    testClasses,
		"Directory":  testDirectoryBits,
		"Sticky":     testSticky,
		"Ownership":  testOwnership,
		"SetGroupID": testSetGroupID,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func (u user) chmod(ino xfs.Inode, mode uint32) {
	u.t.Helper()
	_, err := u.Setattr(u.t.Context(), next(), ino, xfs.SetAttr{Mode: &mode})
	u.must(err)
}

func (u user) chgrp(ino xfs.Inode, group string) {
	u.t.Helper()
	_, err := u.Setattr(u.t.Context(), next(), ino, xfs.SetAttr{Group: &group})
	u.must(err)
}

// testClasses: the first class that fits decides, even if a later one would
// give more; the owner alone may always renew what a descriptor can do.
func testClasses(t *testing.T, as As) {
	alice := user{t, as("alice@physics", "higgs")}
	f := alice.file(xfs.RootInode, "f")
	alice.chgrp(f, "physics:higgs")
	alice.chmod(xfs.RootInode, 0o755)
	member, other := as("bob@physics", "higgs"), as("carol@physics")
	for _, c := range []struct {
		mode          uint32
		member, other xfs.Rights
	}{
		{0o700, 0, 0},
		{0o640, xfs.MayRead, 0},
		{0o060, xfs.MayRead | xfs.MayWrite, 0},
		{0o004, 0, xfs.MayRead},
		{0o006, 0, xfs.MayRead | xfs.MayWrite},
		{0o024, xfs.MayWrite, xfs.MayRead},
	} {
		alice.chmod(f, c.mode)
		for _, who := range []struct {
			m    xfs.MRC
			want xfs.Rights
		}{{alice.MRC, xfs.MayRead | xfs.MayWrite}, {member, c.member}, {other, c.other}} {
			for _, r := range []xfs.Rights{xfs.MayRead, xfs.MayWrite, xfs.MayRead | xfs.MayWrite} {
				_, err := who.m.Open(t.Context(), f, r)
				if r&^who.want == 0 && err != nil || r&^who.want != 0 && !xos.Is(err, xos.Permission) {
					t.Errorf("mode %o, rights %b of %b: %v", c.mode, r, who.want, err)
				}
			}
		}
	}
}

func testDirectoryBits(t *testing.T, as As) {
	alice, bob := user{t, as("alice@physics")}, user{t, as("bob@physics")}
	ctx := t.Context()
	f := alice.file(xfs.RootInode, "f")
	// The root of a volume is its owner's alone at first.
	_, err := bob.Lookup(ctx, xfs.RootInode, "f")
	bob.fails(err, xos.Permission, nil)
	_, err = bob.Lookup(ctx, xfs.RootInode, "none")
	bob.fails(err, xos.Permission, nil)
	_, _, err = bob.MRC.Readdir(ctx, xfs.RootInode, 0, 10)
	bob.fails(err, xos.Permission, nil)
	_, err = bob.Create(ctx, next(), xfs.RootInode, "f", 0o600, false)
	bob.fails(err, xos.Permission, nil)

	alice.chmod(xfs.RootInode, 0o711) // search only
	_, err = bob.Lookup(ctx, xfs.RootInode, "f")
	bob.must(err)
	_, _, err = bob.MRC.Readdir(ctx, xfs.RootInode, 0, 10)
	bob.fails(err, xos.Permission, nil)
	for what, err := range map[string]error{
		"unlink": bob.Unlink(ctx, next(), xfs.RootInode, "f", false),
		"rename": bob.rename(xfs.RootInode, "f", xfs.RootInode, "g", 0),
		"create": func() error { _, err := bob.Create(ctx, next(), xfs.RootInode, "b", 0o600, true); return err }(),
		"mkdir":  func() error { _, err := bob.Mkdir(ctx, next(), xfs.RootInode, "b", 0o700); return err }(),
		"link":   func() error { _, err := bob.Link(ctx, next(), f, xfs.RootInode, "b"); return err }(),
	} {
		if !xos.Is(err, xos.Permission) {
			t.Errorf("%s without write permission: %v", what, err)
		}
	}
	alice.chmod(xfs.RootInode, 0o777)
	b, err := bob.Create(ctx, next(), xfs.RootInode, "b", 0o600, true)
	bob.must(err)
	if b.Attr.Owner != "bob@physics" {
		t.Errorf("bob's file is %s's", b.Attr.Owner)
	}
	// A directory moves to another one only if its ".." may be written.
	d, e := alice.dir(xfs.RootInode, "d"), alice.dir(xfs.RootInode, "e")
	alice.chmod(e, 0o777)
	bob.fails(bob.rename(xfs.RootInode, "d", e, "d", 0), xos.Permission, nil)
	alice.chmod(d, 0o777)
	bob.must(bob.rename(xfs.RootInode, "d", e, "d", 0))
}

func testSticky(t *testing.T, as As) {
	alice, bob, carol := user{t, as("alice@physics")}, user{t, as("bob@physics")}, user{t, as("carol@physics")}
	ctx := t.Context()
	alice.chmod(xfs.RootInode, 0o1777)
	bob.file(xfs.RootInode, "b1")
	bob.file(xfs.RootInode, "b2")
	carol.file(xfs.RootInode, "c")
	carol.fails(carol.Unlink(ctx, next(), xfs.RootInode, "b1", false), xos.Permission, nil)
	carol.fails(carol.rename(xfs.RootInode, "b1", xfs.RootInode, "x", 0), xos.Permission, nil)
	carol.fails(carol.rename(xfs.RootInode, "c", xfs.RootInode, "b1", 0), xos.Permission, nil)
	carol.fails(carol.rename(xfs.RootInode, "c", xfs.RootInode, "b1", xfs.RenameExchange), xos.Permission, nil)
	bob.must(bob.Unlink(ctx, next(), xfs.RootInode, "b1", false))
	alice.must(alice.Unlink(ctx, next(), xfs.RootInode, "b2", false)) // the directory is hers
}

func testOwnership(t *testing.T, as As) {
	alice, bob := user{t, as("alice@physics", "higgs")}, user{t, as("bob@physics", "higgs", "susy")}
	ctx := t.Context()
	alice.chmod(xfs.RootInode, 0o755)
	f := alice.file(xfs.RootInode, "f")
	alice.chmod(f, 0o666)
	mode, group, none, other := uint32(0o777), "physics:higgs", "", "physics:susy"
	for what, set := range map[string]xfs.SetAttr{"chmod": {Mode: &mode}, "chgrp": {Group: &group}} {
		if _, err := bob.Setattr(ctx, next(), f, set); !xos.Is(err, xos.Permission) {
			t.Errorf("%s of another's file: %v", what, err)
		}
	}
	now := time.Now()
	_, err := bob.Setattr(ctx, next(), f, xfs.SetAttr{Mtime: &now}) // may write, so may touch
	bob.must(err)
	bob.must(bob.Setxattr(ctx, next(), f, "user.a", []byte("b"), 0))
	alice.chmod(f, 0o600)
	_, err = bob.Setattr(ctx, next(), f, xfs.SetAttr{Mtime: &now})
	bob.fails(err, xos.Permission, nil)
	_, err = bob.Flush(ctx, next(), f, 1, now)
	bob.fails(err, xos.Permission, nil)
	_, err = bob.Getxattr(ctx, f, "user.a")
	bob.fails(err, xos.Permission, nil)

	alice.chmod(f, 0o6755)
	alice.chgrp(f, group) // takes the set-id bits away
	if a := alice.attr(f); a.Mode&0o7777 != 0o755 || a.Group != group {
		t.Errorf("after chgrp: %+v", a)
	}
	_, err = alice.Setattr(ctx, next(), f, xfs.SetAttr{Group: &other})
	alice.fails(err, xos.Permission, nil)
	alice.chgrp(f, none)

	g := alice.file(xfs.RootInode, "g")
	alice.must(alice.Unlink(ctx, next(), xfs.RootInode, "g", true))
	bob.fails(bob.Release(ctx, next(), g), xos.Permission, nil)
}

func testSetGroupID(t *testing.T, as As) {
	alice, bob := user{t, as("alice@physics", "higgs")}, user{t, as("bob@physics")}
	ctx := t.Context()
	d := alice.dir(xfs.RootInode, "d")
	alice.chgrp(d, "physics:higgs")
	alice.chmod(d, 0o2777)
	o, err := bob.Create(ctx, next(), d, "f", 0o640, true)
	bob.must(err)
	if o.Attr.Group != "physics:higgs" {
		t.Errorf("group %q is not the directory's", o.Attr.Group)
	}
	sub, err := bob.Mkdir(ctx, next(), d, "sub", 0o755)
	bob.must(err)
	if sub.Group != "physics:higgs" || sub.Mode&0o2000 == 0 {
		t.Errorf("a directory inside: %+v", sub)
	}
	// Who is not in a file's group cannot make programs run in it.
	bob.chmod(o.Attr.Inode, 0o2755)
	if a := bob.attr(o.Attr.Inode); a.Mode&0o2000 != 0 {
		t.Errorf("set-group-id to a foreign group: mode %o", a.Mode)
	}
	p, err := bob.Create(ctx, next(), xfs.RootInode, "p", 0o640, true)
	if err == nil {
		t.Errorf("bob wrote into alice's root: %+v", p.Attr)
	}
}
