package client

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// truncate sets the size: at the MRC, then at the OSD. Everything written
// before is sent first, so that no old write arrives after it.
// It is done to its end even if its caller goes.
func (in *inode) truncate(ctx context.Context, set xfs.SetAttr) (attr xfs.Attr, err error) {
	if *set.Size < 0 || *set.Size > maxSize {
		return xfs.Attr{}, ErrFileTooLarge
	}
	err = in.c.detached(ctx, in, func(ctx context.Context) error {
		var err error
		attr, err = in.truncateNow(ctx, set)
		return err
	})
	if err != nil {
		return xfs.Attr{}, err
	}
	return attr, nil
}

func (in *inode) truncateNow(ctx context.Context, set xfs.SetAttr) (xfs.Attr, error) {
	if err := in.flush(ctx); err != nil && !xos.Is(err, xos.TooLarge) {
		return xfs.Attr{}, err // on a full disk truncating is the way out
	}
	in.gate.Lock()
	defer in.gate.Unlock()
	if err := in.flushLocked(ctx); err != nil && !xos.Is(err, xos.TooLarge) {
		return xfs.Attr{}, err
	}
	req := in.c.request()
	attr, err := retry1(ctx, in.c, func(ctx context.Context) (xfs.Attr, error) { return in.c.mrc.Setattr(ctx, req, in.ino, set) })
	if err != nil {
		return xfs.Attr{}, err
	}
	in.mu.Lock()
	shrinks := *set.Size < max(in.size, in.ackEnd)
	for _, k := range in.chunks {
		cut := *set.Size - k.n*in.chunkSize()
		if cut < in.chunkSize() {
			k.cut(int(max(cut, 0)), chunkSize)
			if k.idle() {
				in.drop(k)
			}
		}
	}
	in.unsaid = false
	foreign := in.adopt(attr, true) // the caller may have gone
	in.size = attr.Size
	in.ackEnd = min(in.ackEnd, attr.Size)
	in.fetches = nil
	if shrinks && (!in.uncut || *set.Size < in.cut) {
		in.uncut, in.cut, in.dirtied = true, *set.Size, time.Now()
	}
	in.mu.Unlock()
	if foreign {
		in.c.deps.Changed(in.ino)
	}
	if !shrinks {
		return attr, nil
	}
	in.activate()
	return attr, in.cutStorage(ctx)
}

// cutStorage has the OSD cut what the MRC has noted as cut. As long as the OSD
// was away for it, nothing else is asked of it: what was cut off must not be
// seen again behind what is written later. The gate is held.
func (in *inode) cutStorage(ctx context.Context) error {
	in.mu.Lock()
	uncut := in.uncut
	in.mu.Unlock()
	if !uncut {
		return nil
	}
	in.cutting.Lock()
	defer in.cutting.Unlock()
	in.mu.Lock()
	uncut, size := in.uncut, in.cut
	in.mu.Unlock()
	if !uncut {
		return nil
	}
	err := in.c.persist(ctx, func(ctx context.Context) error {
		capability, err := in.capability(ctx, xfs.MayWrite)
		if err != nil {
			return err
		}
		return in.storage().Truncate(ctx, capability, size, in.layout.ObjectSize)
	})
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case !xos.Is(err, xos.Unavailable):
		in.uncut = in.cut != size // a later cut goes further
	case in.dirtied.IsZero():
		in.dirtied = time.Now() // so that it is tried again
	}
	return err
}

// flushLocked is flush for who holds the gate: the little that was written
// between.
func (in *inode) flushLocked(ctx context.Context) error {
	for _, k := range in.all(func(k *chunk) bool { return len(k.dirty) > 0 }) {
		if err := in.send(ctx, k); err != nil {
			return err
		}
	}
	return nil
}
