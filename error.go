package xos

import (
	"context"
	"errors"
	"fmt"
)

// Kind is the closed set of error kinds. Each has one errno, one PAM and NSS
// status, one RPC code and one exit status; the tables stand where the
// boundary is.
type Kind uint8

const (
	Internal     Kind = iota // a defect or a broken machine
	NotFound                 // the thing does not exist, or not for this caller
	Exists                   // it exists already
	Permission               // policy or ownership refuses
	Invalid                  // the request is malformed
	Unavailable              // try again later, or elsewhere
	NotSupported             // says what is missing and how to get it
	Expired                  // credential, lease or capability has run out
	Conflict                 // someone else changed it meanwhile
	TooLarge                 // a limit or a quota; also a full disk
)

var kindNames = [...]string{"internal", "not found", "exists", "permission denied",
	"invalid", "unavailable", "not supported", "expired", "conflict", "too large"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// ExitStatus is what a command line tool ends with for an error of this kind,
// after sysexits.h where it has a word for it.
func (k Kind) ExitStatus() int {
	switch k {
	case NotFound:
		return 66
	case Permission, Expired:
		return 77
	case Invalid:
		return 64
	case Unavailable:
		return 69
	case NotSupported:
		return 78
	case Conflict:
		return 75
	case Exists, TooLarge:
		return 73
	}
	return 70
}

// Error is an error with a kind. Msg is for the user and says what was being
// done to what; Hint, where there is one, what to do next. Err is for the log.
type Error struct {
	Kind Kind
	Msg  string
	Hint string
	Err  error
}

func (e *Error) Error() string {
	s := e.Msg
	if e.Err != nil {
		if cause := e.Err.Error(); cause != "" {
			s += ": " + cause
		}
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error; a %w in the format is kept for errors.Is and As.
func Errorf(k Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Msg: err.Error(), Err: wrapped{errors.Unwrap(err)}.orNil()}
}

// wrapped keeps a cause reachable without printing it a second time.
type wrapped struct{ err error }

func (w wrapped) Error() string { return "" }
func (w wrapped) Unwrap() error { return w.err }
func (w wrapped) orNil() error {
	if w.err == nil {
		return nil
	}
	return w
}

// WithHint adds what the user can do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// KindOf gives the kind of the first Error in err's tree; a context's end is
// Unavailable, anything else Internal. KindOf(nil) must not be asked.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is, or wraps, an Error of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
