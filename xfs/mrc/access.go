package mrc

import (
	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/xfs"
)

// view is one volume as one user sees it; it implements xfs.MRC.
type view struct {
	*Service
	volume  Volume
	who     vom.Identity
	account string
	groups  map[string]bool
}

var _ xfs.MRC = (*view)(nil)

// Permission bits, as in a class of st_mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayExec  = 1
)

// may checks POSIX permission bits by grid identity: the first class that
// fits decides.
func (v *view) may(n inode, want uint32) error {
	shift := 0
	switch {
	case n.Owner == v.account:
		shift = 6
	case n.Group != "" && v.groups[n.Group]:
		shift = 3
	}
	if n.Mode>>shift&want != want {
		return xos.Errorf(xos.Permission, "permission denied")
	}
	return nil
}

// mayChange checks that entries of a directory may be changed, and with a
// victim that this one may be removed from it (sticky bit).
func (v *view) mayChange(dir inode, victim *inode) error {
	if err := v.may(dir, mayWrite|mayExec); err != nil {
		return err
	}
	if victim != nil && dir.Mode&0o1000 != 0 && victim.Owner != v.account && dir.Owner != v.account {
		return xos.Errorf(xos.Permission, "the directory is sticky, and the file is another's")
	}
	return nil
}

// owns checks that the user owns the file.
func (v *view) owns(n inode) error {
	if n.Owner != v.account {
		return xos.Errorf(xos.Permission, "only its owner may do this")
	}
	return nil
}

func checkName(name string) error {
	switch {
	case len(name) > xfs.MaxName:
		return xfs.ErrNameLong
	case name == "" || name == "." || name == "..":
		return xos.Errorf(xos.Invalid, "%q cannot name a file", name)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return xos.Errorf(xos.Invalid, "%.80q cannot name a file", name)
		}
	}
	return nil
}
