package xvoms

import (
	"context"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

const prefixBan = "vom/ban/" // KIND/SUBJECT → vom.Ban; a fingerprint's '/' is '_'

// maxBans bounds what every machine holds and compares.
const maxBans = 10000

// maxBanFor is the longest ban with an end.
const maxBanFor = 100 * 365 * 24 * time.Hour

func keyBan(k vom.BanKind, subject string) string {
	return prefixBan + string(k) + "/" + strings.ReplaceAll(subject, "/", "_")
}

// AddBan keeps somebody or something out for so long; 0 is until it is lifted,
// or for a certificate until it has expired in any case. What was certified on
// a banned key stays refused when the ban is lifted.
func (r *Records) AddBan(ctx context.Context, b vom.Ban, long time.Duration) (vom.Ban, error) {
	if err := b.Check(); err != nil {
		return b, err
	}
	var err error
	if b.Reason, err = goodReason(b.Reason); err != nil {
		return b, err
	}
	if long < 0 || long > maxBanFor {
		return b, xos.Errorf(xos.Invalid, "%v is no time for a ban", long)
	}
	if long == 0 && b.Kind == vom.BanCertificate {
		long = max(r.cfg.MachineTTL, MaxUserTTL) + skew
	}
	b.Since, b.Until = r.now(), time.Time{}
	if long > 0 {
		b.Until = b.Since.Add(long)
	}
	err = r.change(ctx, func(t kv.Txn) error {
		n := 0
		if err := each(t, prefixBan, func(string, vom.Ban) error { n++; return nil }); err != nil {
			return err
		}
		if n >= maxBans {
			return xos.Errorf(xos.TooLarge, "there are %d bans already", n).WithHint("lift some: xos ban list")
		}
		if b.Kind == vom.BanNode {
			if _, core, err := read[machineRecord](t, keyMachine(xos.NodeID(b.Subject), vom.ServiceCore)); err != nil || core {
				return or(err, xos.Errorf(xos.Permission, "%q is a core", b.Subject).WithHint("a core is taken out of service on its own machine"))
			}
		}
		if err := write(t, keyBan(b.Kind, b.Subject), b); err != nil {
			return err
		}
		return bump(t)
	})
	if err == nil && b.Kind == vom.BanKey {
		// From here on nothing new is certified on it.
		err = r.revokeKey(ctx, b)
	}
	return b, err
}

// revokeKey ends what was certified on a key, and so what machines hold for it.
func (r *Records) revokeKey(ctx context.Context, b vom.Ban) error {
	issued := map[string]time.Time{}
	now := r.now()
	err := r.db.View(ctx, func(t kv.Txn) error {
		clear(issued)
		return each(t, prefixIssued, func(serial string, i issuedRecord) error {
			if i.Key == b.Subject && now.Before(i.NotAfter) {
				issued[serial] = i.Issued
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	reason := "its key was banned"
	if b.Reason != "" {
		reason += ": " + b.Reason
	}
	for serial, at := range issued {
		if err := r.Revoke(ctx, serial, at, reason); err != nil {
			return err
		}
	}
	return nil
}

// RemoveBan lifts a ban.
func (r *Records) RemoveBan(ctx context.Context, k vom.BanKind, subject string) error {
	if err := (vom.Ban{Kind: k, Subject: subject}).Check(); err != nil {
		return err
	}
	return r.change(ctx, func(t kv.Txn) error {
		if _, ok, err := read[vom.Ban](t, keyBan(k, subject)); err != nil || !ok {
			return or(err, xos.Errorf(xos.NotFound, "the %s %.80s is not banned", k, subject).WithHint("see: xos ban list"))
		}
		if err := t.Delete([]byte(keyBan(k, subject))); err != nil {
			return err
		}
		return bump(t)
	})
}

// ListBans gives those in force.
func (r *Records) ListBans(ctx context.Context) (list []vom.Ban, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		list, err = bans(t, r.now())
		return err
	})
	return list, err
}

func bans(t kv.Txn, now time.Time) (list []vom.Ban, err error) {
	err = each(t, prefixBan, func(_ string, b vom.Ban) error {
		if b.InForce(now) {
			list = append(list, b)
		}
		return nil
	})
	return list, err
}

// notBanned refuses to certify what is banned. It reads the bans by their
// keys, so that a ban and an issue are never unaware of each other.
func (r *Records) notBanned(t kv.Txn, id vom.Identity) error {
	for _, s := range []struct {
		kind    vom.BanKind
		subject string
	}{{vom.BanUser, string(id.User)}, {vom.BanAccount, id.Account.String()}, {vom.BanNode, string(id.Node)}, {vom.BanKey, id.Key}} {
		if s.subject == "" {
			continue
		}
		b, ok, err := read[vom.Ban](t, keyBan(s.kind, s.subject))
		if err != nil {
			return err
		}
		if ok && b.InForce(r.now()) {
			return vom.By(vom.RuleBan, credential.BanError(b))
		}
	}
	return nil
}
