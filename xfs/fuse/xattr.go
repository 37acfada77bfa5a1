package fuse

import (
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/xtreemos/xos/xfs"
)

// fit puts an answer into the caller's memory: with none given its size is
// what was asked for, and too little is ERANGE.
func fit(dest, value []byte) (uint32, gofuse.Status) {
	if len(dest) == 0 {
		return uint32(len(value)), gofuse.OK
	}
	if len(dest) < len(value) {
		return uint32(len(value)), gofuse.ERANGE
	}
	return uint32(copy(dest, value)), gofuse.OK
}

func (fs *FS) GetXAttr(cancel <-chan struct{}, h *gofuse.InHeader, name string, dest []byte) (uint32, gofuse.Status) {
	if !strings.HasPrefix(name, "user.") {
		return 0, gofuse.ENOATTR // asked for at every turn; never there
	}
	value, err := fs.client.Getxattr(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name)
	if err != nil {
		return 0, fs.status("getxattr", h.NodeId, err)
	}
	return fit(dest, value)
}

func (fs *FS) ListXAttr(cancel <-chan struct{}, h *gofuse.InHeader, dest []byte) (uint32, gofuse.Status) {
	names, err := fs.client.Listxattr(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId))
	if err != nil {
		return 0, fs.status("listxattr", h.NodeId, err)
	}
	var all []byte
	for _, n := range names {
		all = append(append(all, n...), 0)
	}
	return fit(dest, all)
}

func (fs *FS) SetXAttr(cancel <-chan struct{}, in *gofuse.SetXAttrIn, name string, value []byte) gofuse.Status {
	if !strings.HasPrefix(name, "user.") {
		return gofuse.Status(syscall.EOPNOTSUPP)
	}
	err := fs.client.Setxattr(fs.context(cancel, in.Pid), xfs.Inode(in.NodeId), name, value, int(in.Flags))
	return fs.status("setxattr", in.NodeId, err)
}

func (fs *FS) RemoveXAttr(cancel <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	return fs.status("removexattr", h.NodeId, fs.client.Removexattr(fs.context(cancel, h.Pid), xfs.Inode(h.NodeId), name))
}
