package mrc

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/xfs"
)

// reply is what a request was answered with, kept for its repetition.
type reply struct {
	At     int64     `json:"at"`
	Attr   *xfs.Attr `json:"attr,omitempty"`
	Opened xfs.Inode `json:"opened,omitempty"`
}

// replyTTL is for how long a request may be repeated; clients give up sooner.
const replyTTL = 10 * time.Minute

// change runs f in a transaction, once: a repeated request gets the first
// one's answer and changes nothing.
func (v *view) change(ctx context.Context, req xfs.RequestID, f func(x tx, now int64) (reply, error)) (reply, error) {
	var out reply
	err := v.db.Update(ctx, func(t kv.Txn) error {
		x := tx{t, v.volume.Name}
		key := x.key('r', req.Client, req.Number)
		if req != (xfs.RequestID{}) {
			old, ok, err := get[reply](x, key)
			if err != nil {
				return err
			}
			if ok {
				out = old
				return nil
			}
		}
		now := v.cfg.Now().UnixNano()
		var err error
		if out, err = f(x, now); err != nil {
			return err
		}
		if req == (xfs.RequestID{}) {
			return nil
		}
		out.At = now
		return put(x, key, out)
	})
	return out, err
}

// otherRequest is said of a request whose number was another's.
func otherRequest() error {
	return xos.Errorf(xos.Invalid, "this request's number was used for another one")
}

// look runs f on a snapshot.
func (v *view) look(ctx context.Context, f func(x tx) error) error {
	return v.db.View(ctx, func(t kv.Txn) error { return f(tx{t, v.volume.Name}) })
}

// changeAttr is change for methods that answer with attributes.
func (v *view) changeAttr(ctx context.Context, req xfs.RequestID, f func(x tx, now int64) (xfs.Attr, error)) (xfs.Attr, error) {
	r, err := v.change(ctx, req, func(x tx, now int64) (reply, error) {
		a, err := f(x, now)
		return reply{Attr: &a}, err
	})
	if err != nil {
		return xfs.Attr{}, err
	}
	if r.Attr == nil {
		return xfs.Attr{}, otherRequest()
	}
	return *r.Attr, nil
}

// changeOnly is change for methods that answer with nothing.
func (v *view) changeOnly(ctx context.Context, req xfs.RequestID, f func(x tx, now int64) error) error {
	_, err := v.change(ctx, req, func(x tx, now int64) (reply, error) { return reply{}, f(x, now) })
	return err
}
