package xvoms

import (
	"context"
	"slices"

	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

// Bundle gives the bundle as this core last read it. It must not be changed.
func (r *Records) Bundle() vom.Bundle { return *r.bundle.Load() }

// Refresh reads the bundle from the records if its epoch is new, and vouches
// for it otherwise.
func (r *Records) Refresh(ctx context.Context) error {
	r.refresh.Lock()
	defer r.refresh.Unlock()
	b := r.cfg.Trust
	b.Issued, b.Offline = r.now(), r.cfg.Offline
	old := r.bundle.Load()
	err := r.db.View(ctx, func(t kv.Txn) (err error) {
		b.VOs, b.Revocations, b.Bans, b.RevokedSerials = nil, nil, nil, nil
		if b.Epoch, err = epoch(t); err != nil {
			return err
		}
		if old != nil && old.Epoch == b.Epoch {
			b.VOs, b.Revocations, b.Bans, b.RevokedSerials = old.VOs, old.Revocations, old.Bans, old.RevokedSerials
			return nil
		}
		err = each(t, prefixVO, func(name string, v voRecord) error {
			b.VOs = append(b.VOs, v.of(name))
			return nil
		})
		if err != nil {
			return err
		}
		if b.Revocations, err = r.revocations(t, b.Issued); err != nil {
			return err
		}
		if b.Bans, err = bans(t, b.Issued); err != nil {
			return err
		}
		if old != nil && slices.Equal(old.Revocations, b.Revocations) && slices.Equal(old.Bans, b.Bans) {
			// Nothing was certified since that they refuse: see issue.
			b.RevokedSerials = old.RevokedSerials
			return nil
		}
		refused, err := revokedCertificates(t, b, b.Issued)
		for _, c := range refused {
			b.RevokedSerials = append(b.RevokedSerials, c.Serial)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.bundle.Store(&b)
	if old == nil || old.Epoch != b.Epoch {
		select {
		case <-r.changed: // an older epoch that nobody has read yet
		default:
		}
		r.changed <- b.Epoch
	}
	return nil
}
