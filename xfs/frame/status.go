package frame

import (
	"context"
	"errors"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// distinguished are the errors that kinds do not tell apart, by their code on
// the wire; 0 is none of them.
func distinguished(code uint8) error {
	switch code {
	case 1:
		return xfs.ErrNotEmpty
	case 2:
		return xfs.ErrNotDir
	case 3:
		return xfs.ErrIsDir
	case 4:
		return xfs.ErrStale
	case 5:
		return xfs.ErrNoAttr
	case 6:
		return xfs.ErrTooMany
	case 7:
		return xfs.ErrNameLong
	case 8:
		return xfs.ErrCorrupt
	}
	return nil
}

const lastDistinguished = 8

// failure is the head of a reply with an error.
type failure struct {
	code      uint8
	msg, hint string
}

func (f *failure) fields(c *coder) {
	c.u8(&f.code)
	str(c, &f.msg, 4096)
	str(c, &f.hint, 4096)
}

// statusOf gives a reply's code and head for an error. What an internal error
// is about stays here, for the log.
func statusOf(err error) (code uint8, f failure) {
	kind := xos.KindOf(err)
	for i := uint8(1); i <= lastDistinguished; i++ {
		if errors.Is(err, distinguished(i)) {
			f.code = i
		}
	}
	var e *xos.Error
	switch {
	case kind == xos.Internal && f.code == 0:
		f.msg = "internal error of the server"
	case errors.As(err, &e):
		f.msg, f.hint = clip(e.Msg), clip(e.Hint)
	case errors.Is(err, context.DeadlineExceeded):
		f.msg = "not done in time"
	default:
		f.msg = "cancelled"
	}
	return 1 + uint8(kind), f
}

func clip(s string) string { return s[:min(len(s), 4096)] }

// errorOf is the inverse of statusOf.
func errorOf(code uint8, f failure) error {
	kind := xos.Kind(code - 1)
	if kind > xos.TooLarge {
		kind = xos.Internal
	}
	e := &xos.Error{Kind: kind, Msg: f.msg, Hint: f.hint}
	if d := distinguished(f.code); d != nil {
		e.Err = unprinted{d}
	}
	return e
}

// unprinted keeps an error reachable for errors.Is: its text is part of the
// message already.
type unprinted struct{ err error }

func (u unprinted) Error() string { return "" }
func (u unprinted) Unwrap() error { return u.err }

func unavailable(err error, what string) error {
	return &xos.Error{Kind: xos.Unavailable, Msg: what, Err: err}
}
