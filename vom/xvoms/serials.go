package xvoms

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// RevokedCertificate is one that is refused though it has not expired.
type RevokedCertificate struct {
	Serial string
	At     time.Time
	// Why it is, in the words of RFC 5280's reason codes.
	Reason int
}

// Reason codes of RFC 5280, 5.3.1.
const (
	ReasonKeyCompromise      = 1
	ReasonCessation          = 5
	ReasonHold               = 6
	ReasonPrivilegeWithdrawn = 9
)

// RevokedCertificates lists what is refused now, by serial.
func (r *Records) RevokedCertificates(ctx context.Context) (list []RevokedCertificate, err error) {
	b := r.Bundle()
	err = r.db.View(ctx, func(t kv.Txn) error {
		list, err = revokedCertificates(t, b, r.now())
		return err
	})
	return list, err
}

// revokedCertificates compares every issue on record with what could refuse it.
func revokedCertificates(t kv.Txn, b vom.Bundle, now time.Time) (list []RevokedCertificate, err error) {
	if len(b.Revocations) == 0 && len(b.Bans) == 0 {
		return nil, nil
	}
	candidates := newConcerning(b)
	err = each(t, prefixIssued, func(serial string, i issuedRecord) error {
		if now.Before(i.NotAfter) {
			if c, ok := i.refused(candidates.about(serial, i), serial, now); ok {
				list = append(list, c)
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b RevokedCertificate) int {
		return cmp.Or(cmp.Compare(len(a.Serial), len(b.Serial)), cmp.Compare(a.Serial, b.Serial))
	})
	return list, err
}

func (i issuedRecord) refused(b vom.Bundle, serial string, now time.Time) (RevokedCertificate, bool) {
	var rev vom.Revocation
	var ban vom.Ban
	var revoked, banned bool
	if i.Machine != "" {
		node, service, _ := strings.Cut(i.Machine, "/")
		m := vom.Machine{Node: xos.NodeID(node), Service: vom.Service(service), Serial: serial, Key: i.Key}
		rev, revoked = credential.RevokedMachine(b.Revocations, m, i.Issued)
		ban, banned = credential.BannedMachine(b.Bans, m, now)
	} else {
		id := i.identity(serial)
		rev, revoked = credential.Revoked(b.Revocations, id)
		ban, banned = credential.Banned(b.Bans, id, now)
	}
	switch {
	case revoked && rev.Leaves(now) == vom.FateFreeze:
		return RevokedCertificate{serial, rev.Before, ReasonHold}, true
	case revoked && i.Machine != "":
		return RevokedCertificate{serial, rev.Before, ReasonCessation}, true
	case revoked:
		return RevokedCertificate{serial, rev.Before, ReasonPrivilegeWithdrawn}, true
	case banned && (ban.Kind == vom.BanKey || ban.Kind == vom.BanCertificate):
		return RevokedCertificate{serial, ban.Since, ReasonKeyCompromise}, true
	case banned:
		return RevokedCertificate{serial, ban.Since, ReasonHold}, true
	}
	return RevokedCertificate{}, false
}

// identity is as much of one as is on record.
func (i issuedRecord) identity(serial string) vom.Identity {
	id := vom.Identity{Serial: serial, Issued: i.Issued, NotAfter: i.NotAfter, Node: i.Node, Source: i.Source, Key: i.Key}
	user, vo, _ := strings.Cut(i.Account, "@")
	id.Account = xos.Account{User: xos.UserID(user), VO: xos.VOName(vo)}
	return id
}
