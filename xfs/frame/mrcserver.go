package frame

import (
	"context"
	"log/slog"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// ServeMRC makes a server of metadata. For each request resolve gives the
// volume as this peer may see it, or refuses; it should be quick.
func ServeMRC(log *slog.Logger, resolve func(ctx context.Context, p *Peer, volume xos.VolumeID) (xfs.MRC, error)) *Server {
	handlers := map[Op]Handler{}
	for op := opLookup; op <= opRemovexattr; op++ {
		handlers[op] = func(ctx context.Context, r *Request) (Reply, error) {
			a := mrcArgs{op: op}
			if err := decode(r.Head, &a); err != nil {
				return Reply{}, err
			}
			if len(r.Bulk) > 0 {
				return Reply{}, xos.Errorf(xos.Invalid, "malformed message: unexpected data")
			}
			m, err := resolve(ctx, r.Peer, a.volume)
			if err != nil {
				return Reply{}, err
			}
			result, err := a.do(ctx, m)
			if err != nil {
				return Reply{}, err
			}
			head, err := encode(nil, result)
			return Reply{Head: head}, err
		}
	}
	return NewServer(log, handlers)
}

// do calls the method that the arguments are for.
func (a *mrcArgs) do(ctx context.Context, m xfs.MRC) (message, error) {
	switch a.op {
	case opLookup:
		return attrResult(m.Lookup(ctx, a.ino, a.name))
	case opGetattr:
		return attrResult(m.Getattr(ctx, a.ino))
	case opSetattr:
		return attrResult(m.Setattr(ctx, a.req, a.ino, a.set))
	case opReadlink:
		s, err := m.Readlink(ctx, a.ino)
		return &text{s}, err
	case opReaddir:
		list, done, err := m.Readdir(ctx, a.ino, a.cookie, min(a.count, MaxEntries))
		return &entries{list, done}, err
	case opStatfs:
		s, err := m.Statfs(ctx)
		return statfs{&s}, err
	case opCreate:
		return openedResult(m.Create(ctx, a.req, a.ino, a.name, a.mode, a.flag))
	case opMknod:
		return attrResult(m.Mknod(ctx, a.req, a.ino, a.name, a.mode))
	case opMkdir:
		return attrResult(m.Mkdir(ctx, a.req, a.ino, a.name, a.mode))
	case opSymlink:
		return attrResult(m.Symlink(ctx, a.req, a.ino, a.name, a.name2))
	case opLink:
		return attrResult(m.Link(ctx, a.req, a.ino2, a.ino, a.name))
	case opUnlink:
		return nothing{}, m.Unlink(ctx, a.req, a.ino, a.name, a.flag)
	case opRmdir:
		return nothing{}, m.Rmdir(ctx, a.req, a.ino, a.name)
	case opRename:
		return nothing{}, m.Rename(ctx, a.req, a.ino, a.name, a.ino2, a.name2, xfs.RenameFlags(a.mode), a.flag)
	case opOpen:
		return openedResult(m.Open(ctx, a.ino, a.rights))
	case opFlush:
		return attrResult(m.Flush(ctx, a.req, a.ino, a.size, a.mtime))
	case opRelease:
		return nothing{}, m.Release(ctx, a.req, a.ino)
	case opGetxattr:
		b, err := m.Getxattr(ctx, a.ino, a.name)
		return &blob{b}, err
	case opSetxattr:
		return nothing{}, m.Setxattr(ctx, a.req, a.ino, a.name, append([]byte{}, a.value...), a.count)
	case opListxattr:
		list, err := m.Listxattr(ctx, a.ino)
		return &names{list}, err
	case opRemovexattr:
		return nothing{}, m.Removexattr(ctx, a.req, a.ino, a.name)
	}
	return nil, xos.Errorf(xos.NotSupported, "this server knows no operation %d", a.op)
}

func attrResult(a xfs.Attr, err error) (message, error) { return attr{&a}, err }

func openedResult(o xfs.Opened, err error) (message, error) { return opened{&o}, err }
