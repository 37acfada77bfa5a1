package xfstest

import (
	"bytes"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

func testAttributes(t *testing.T, u user) {
	ctx := t.Context()
	f := u.file(xfs.RootInode, "f")
	before := u.attr(f)
	mode, size := uint32(0o4711), int64(5000)
	at, mt := time.Unix(1, 2), time.Unix(3, 999999999)
	a, err := u.Setattr(ctx, next(), f, xfs.SetAttr{Mode: &mode, Atime: &at, Mtime: &mt})
	u.must(err)
	if a.Mode != typeFile|mode || !a.Atime.Equal(at) || !a.Mtime.Equal(mt) || a.Version <= before.Version || a.Ctime.Before(before.Ctime) {
		t.Errorf("after setattr: %+v", a)
	}
	a, err = u.Setattr(ctx, next(), f, xfs.SetAttr{Size: &size})
	u.must(err)
	if a.Size != size || a.Mode != typeFile|0o711 || !a.Mtime.After(mt) {
		t.Errorf("after a change of size: %+v", a)
	}
	if diff := cmp.Diff(a, u.attr(f)); diff != "" {
		t.Errorf("getattr (-setattr +getattr):\n%s", diff)
	}
	negative := int64(-1)
	_, err = u.Setattr(ctx, next(), f, xfs.SetAttr{Size: &negative})
	u.fails(err, xos.Invalid, nil)
	_, err = u.Setattr(ctx, next(), xfs.RootInode, xfs.SetAttr{Size: &size})
	u.fails(err, xos.Invalid, xfs.ErrIsDir)
	other := "mallory@physics"
	_, err = u.Setattr(ctx, next(), f, xfs.SetAttr{Owner: &other})
	u.fails(err, xos.Permission, nil)
	group := "physics:unknown"
	_, err = u.Setattr(ctx, next(), f, xfs.SetAttr{Group: &group})
	u.fails(err, xos.Permission, nil)
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	a, err = u.Setattr(ctx, next(), f, xfs.SetAttr{Mtime: &far})
	u.must(err)
	if a.Mtime.Year() < 2200 {
		t.Errorf("a far time became %v", a.Mtime)
	}
}

// testDirectoryTimes: what changes in a directory shows in its times and
// version, and what is set is seen.
func testDirectoryTimes(t *testing.T, u user) {
	ctx := t.Context()
	d := u.dir(xfs.RootInode, "d")
	versions := []uint64{u.attr(d).Version}
	grown := func(what string) {
		t.Helper()
		v := u.attr(d).Version
		if v <= versions[len(versions)-1] {
			t.Errorf("%s: version %d after %d", what, v, versions[len(versions)-1])
		}
		versions = append(versions, v)
	}
	before := u.attr(d)
	u.file(d, "f")
	if a := u.attr(d); !a.Mtime.After(before.Mtime) || !a.Ctime.After(before.Ctime) {
		t.Errorf("a new entry does not show: %+v", a)
	}
	grown("create")
	for range 20 {
		old := time.Unix(1000, 0)
		a, err := u.Setattr(ctx, next(), d, xfs.SetAttr{Mtime: &old})
		u.must(err)
		if !a.Mtime.Equal(old) || !u.attr(d).Mtime.Equal(old) {
			t.Fatalf("mtime is %v, was set to %v", a.Mtime, old)
		}
		grown("setting mtime")
	}
	mode := uint32(0o700)
	_, err := u.Setattr(ctx, next(), d, xfs.SetAttr{Mode: &mode})
	u.must(err)
	grown("chmod")
	future := time.Now().Add(time.Hour)
	_, err = u.Setattr(ctx, next(), d, xfs.SetAttr{Mtime: &future})
	u.must(err)
	grown("mtime in the future")
	u.must(u.Unlink(ctx, next(), d, "f", false))
	grown("unlink")
	if a := u.attr(d); !a.Mtime.Before(future) {
		t.Errorf("after an unlink mtime is still the future one")
	}
}

func testFlush(t *testing.T, u user) {
	ctx := t.Context()
	f := u.file(xfs.RootInode, "f")
	mt := time.Unix(100, 5)
	a, err := u.Flush(ctx, next(), f, 4096, mt)
	u.must(err)
	if a.Size != 4096 || !a.Mtime.Equal(mt) {
		t.Errorf("flush: %+v", a)
	}
	b, err := u.Flush(ctx, next(), f, 10, mt)
	u.must(err)
	if b.Size != 4096 || b.Version <= a.Version {
		t.Errorf("a flush of less: %+v after %+v", b, a)
	}
	_, err = u.Flush(ctx, next(), xfs.RootInode, 10, mt)
	u.fails(err, xos.Invalid, nil)
}

func testXattrs(t *testing.T, u user) {
	ctx := t.Context()
	f := u.file(xfs.RootInode, "f")
	const create, replace = 1, 2
	big := bytes.Repeat([]byte("v"), xfs.MaxXattr)
	u.fails(u.Setxattr(ctx, next(), f, "user.a", []byte("1"), replace), xos.NotFound, xfs.ErrNoAttr)
	u.must(u.Setxattr(ctx, next(), f, "user.a", []byte("1"), create))
	u.fails(u.Setxattr(ctx, next(), f, "user.a", []byte("2"), create), xos.Exists, nil)
	u.must(u.Setxattr(ctx, next(), f, "user.a", []byte{}, 0))
	u.must(u.Setxattr(ctx, next(), f, "user.b", big, 0))
	u.fails(u.Setxattr(ctx, next(), f, "user.c", append(big, 'v'), 0), xos.TooLarge, nil)
	u.fails(u.Setxattr(ctx, next(), f, "trusted.a", nil, 0), xos.NotSupported, nil)
	u.fails(u.Setxattr(ctx, next(), f, "user."+strings.Repeat("n", xfs.MaxName), nil, 0), xos.Invalid, nil)
	for name, want := range map[string][]byte{"user.a": {}, "user.b": big} {
		got, err := u.Getxattr(ctx, f, name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	list, err := u.Listxattr(ctx, f)
	u.must(err)
	sort.Strings(list)
	if diff := cmp.Diff([]string{"user.a", "user.b"}, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	u.must(u.Removexattr(ctx, next(), f, "user.a"))
	u.fails(u.Removexattr(ctx, next(), f, "user.a"), xos.NotFound, xfs.ErrNoAttr)
	_, err = u.Getxattr(ctx, f, "user.a")
	u.fails(err, xos.NotFound, xfs.ErrNoAttr)
}

func testCapability(t *testing.T, u user) {
	ctx := t.Context()
	o, err := u.Create(ctx, next(), xfs.RootInode, "f", 0o600, true)
	u.must(err)
	if c := o.Capability; c.File.Inode != o.Attr.Inode || c.File.Volume == "" || c.Rights != xfs.MayRead|xfs.MayWrite ||
		c.Node == "" || c.Account != o.Attr.Owner || len(c.Signature) == 0 || !c.Expires.After(time.Now()) {
		t.Errorf("capability: %+v", c)
	}
	o, err = u.Open(ctx, o.Attr.Inode, xfs.MayRead)
	u.must(err)
	if o.Capability.Rights != xfs.MayRead {
		t.Errorf("rights %b were not asked for", o.Capability.Rights)
	}
	for _, bad := range []xfs.Rights{0, xfs.MayDelete, xfs.MayRead | xfs.MayDelete, 1 << 6} {
		_, err = u.Open(ctx, o.Attr.Inode, bad)
		u.fails(err, xos.Invalid, nil)
	}
	_, err = u.Open(ctx, xfs.RootInode, xfs.MayRead)
	u.fails(err, xos.Invalid, xfs.ErrIsDir)
}
