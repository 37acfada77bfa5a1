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
	if err := r.db.View(ctx, func(t kv.Txn) error { return noCore(t, b) }); err != nil {
		return b, err
	}
	err = r.change(ctx, func(t kv.Txn) error {
		n := 0 // with what is over and not swept yet
		if err := each(t, prefixBan, func(string, vom.Ban) error { n++; return nil }); err != nil {
			return err
		}
		if _, again, err := read[vom.Ban](t, keyBan(b.Kind, b.Subject)); err != nil {
			return err
		} else if n >= maxBans && !again {
			return xos.Errorf(xos.TooLarge, "there are %d bans already", n).WithHint("lift some: xos ban list")
		}
		if err := write(t, keyBan(b.Kind, b.Subject), b); err != nil {
			return err
		}
		return bump(t)
	})
	if err == nil && b.Kind == vom.BanKey {
		// From here on nothing new is certified on it.
		err = r.revokeBannedKeys(ctx)
	}
	return b, err
}

// noCore refuses to ban a core: machines would not believe it any more, not even
// that the ban was lifted.
func noCore(t kv.Txn, b vom.Ban) error {
	core, err := false, error(nil)
	switch b.Kind {
	case vom.BanNode:
		_, core, err = read[machineRecord](t, keyMachine(xos.NodeID(b.Subject), vom.ServiceCore))
	case vom.BanCertificate, vom.BanKey:
		err = each(t, prefixIssued, func(serial string, i issuedRecord) error {
			core = core || (serial == b.Subject || i.Key == b.Subject) && strings.HasSuffix(i.Machine, "/"+string(vom.ServiceCore))
			return nil
		})
	}
	if err != nil || !core {
		return err
	}
	return xos.Errorf(xos.Permission, "the %s %s is a core's", b.Kind, b.Subject).WithHint("a core is taken out of service on its own machine")
}

// revokeBannedKeys ends what was certified on banned keys, and so what machines
// hold for it. Sweep does it too: who bans may die before this.
func (r *Records) revokeBannedKeys(ctx context.Context) error {
	type issue struct {
		serial, reason string
		at             time.Time
	}
	var left []issue
	now := r.now()
	err := r.db.View(ctx, func(t kv.Txn) error {
		left = nil
		reasons := map[string]string{}
		list, err := bans(t, now)
		for _, b := range list {
			if b.Kind == vom.BanKey {
				reasons[b.Subject] = "its key was banned: " + b.Reason
			}
		}
		if err != nil || len(reasons) == 0 {
			return err
		}
		return each(t, prefixIssued, func(serial string, i issuedRecord) error {
			reason, banned := reasons[i.Key]
			if !banned || !now.Before(i.NotAfter) {
				return nil
			}
			_, done, err := t.Get([]byte(prefixRevoked + "serial/" + serial))
			if err == nil && !done {
				left = append(left, issue{serial, strings.TrimSuffix(reason, ": "), i.Issued})
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, i := range left {
		if err := r.Revoke(ctx, i.serial, i.at, i.reason); err != nil {
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
	}{{vom.BanUser, string(id.User)}, {vom.BanAccount, id.Account.String()}, {vom.BanNode, string(id.Node)}, {vom.BanKey, id.Key}, {vom.BanCertificate, id.Source}} {
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
