package xvoms

import (
	"context"

	"github.com/xtreemos/xos"
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
		b.VOs, b.Revocations = nil, nil
		if b.Epoch, err = epoch(t); err != nil {
			return err
		}
		if old != nil && old.Epoch == b.Epoch {
			b.VOs, b.Revocations = old.VOs, old.Revocations
			return nil
		}
		err = each(t, prefixVO, func(name string, v voRecord) error {
			b.VOs = append(b.VOs, vom.VO{Name: xos.VOName(name), Groups: v.Groups, Policy: v.Policy})
			return nil
		})
		if err != nil {
			return err
		}
		return each(t, prefixRevoked, func(_ string, v revocationRecord) error {
			if b.Issued.Before(v.Until) {
				b.Revocations = append(b.Revocations, v.Revocation)
			}
			return nil
		})
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
