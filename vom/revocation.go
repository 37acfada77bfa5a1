package vom

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/xtreemos/xos"
)

// Fate is what becomes of what a removed member has running; "" is FateEnd.
type Fate string

const (
	FateEnd    Fate = "end"    // sessions and jobs are killed
	FateFreeze Fate = "freeze" // they are stopped, and go on if she comes back in time
	FateFinish Fate = "finish" // they go on to their end; nothing new begins
)

// Removal is what a VO wants for the members that it removes.
type Removal struct {
	Fate Fate `json:"fate,omitempty"`
	// For bounds freezing and finishing; what is left then is ended.
	For time.Duration `json:"for,omitempty"`
}

// MaxGrace bounds Removal.For: no certificate of the removed member is valid
// for longer. DefaultGrace is taken where a policy names no time.
const (
	MaxGrace     = 12 * time.Hour
	DefaultGrace = time.Hour
)

// Check says why a removal cannot be a VO's policy, or nil.
func (r Removal) Check() error {
	switch r.Fate {
	case "", FateEnd:
		if r.For != 0 {
			return xos.Errorf(xos.Invalid, "what is ended at once has no time to go on")
		}
	case FateFreeze, FateFinish:
		if r.For < time.Second || r.For > MaxGrace {
			return xos.Errorf(xos.Invalid, "%v is no time to %s for: from 1s to %v", r.For, r.Fate, MaxGrace)
		}
	default:
		return xos.Errorf(xos.Invalid, "%.40q is no fate: end, freeze or finish", string(r.Fate))
	}
	return nil
}

// Leaves says what a revocation leaves running now: FateEnd once its grace is
// over.
func (r Revocation) Leaves(now time.Time) Fate {
	if r.Fate == "" || !now.Before(r.Grace) {
		return FateEnd
	}
	return r.Fate
}

// BanKind is what a ban names.
type BanKind string

const (
	BanUser        BanKind = "user"        // "alice", in every VO
	BanAccount     BanKind = "account"     // "alice@physics"
	BanNode        BanKind = "node"        // "node1", and what users delegated to it
	BanKey         BanKind = "key"         // "SHA256:…", as ssh-keygen -l prints it
	BanCertificate BanKind = "certificate" // a serial, and what was delegated from it
)

// Ban keeps somebody or something out of the whole grid until it is lifted or
// over, whatever certificates there are or will be.
type Ban struct {
	Kind    BanKind `json:"kind"`
	Subject string  `json:"subject"`
	// Reason is for the one who is kept out.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is lifted
}

// InForce reports whether the ban counts now.
func (b Ban) InForce(now time.Time) bool { return b.Until.IsZero() || now.Before(b.Until) }

// Check says why a ban names nothing that could be banned, or nil.
func (b Ban) Check() error {
	bad := func(want string) error {
		return xos.Errorf(xos.Invalid, "%.80q is no %s: want %s", b.Subject, b.Kind, want)
	}
	switch b.Kind {
	case BanUser, BanNode:
		if !xos.ValidName(b.Subject) || xos.ReservedName(b.Subject) {
			return bad("a name")
		}
	case BanAccount:
		_, err := xos.ParseAccount(b.Subject)
		return err
	case BanKey:
		sum, ok := strings.CutPrefix(b.Subject, "SHA256:")
		if raw, err := base64.RawStdEncoding.Strict().DecodeString(sum); !ok || err != nil || len(raw) != 32 {
			return bad("a fingerprint as ssh-keygen -l prints it, SHA256:…")
		}
	case BanCertificate:
		if n := len(b.Subject); n == 0 || n > 49 || b.Subject[0] == '0' || strings.Trim(b.Subject, "0123456789") != "" {
			return bad("a serial, a decimal number")
		}
	default:
		return xos.Errorf(xos.Invalid, "%.40q cannot be banned: a user, account, node, key or certificate can", string(b.Kind))
	}
	return nil
}

// ServesUntil is when a machine with this bundle must stop serving a VO, if
// there are no news until then: the bundle's time, or the VO's own where that
// is shorter.
func (b Bundle) ServesUntil(vo xos.VOName) time.Time {
	offline := b.Offline
	for _, v := range b.VOs {
		if v.Name == vo && v.Offline > 0 {
			offline = min(offline, v.Offline)
		}
	}
	return b.Issued.Add(offline)
}
