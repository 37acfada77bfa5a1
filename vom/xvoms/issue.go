package xvoms

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type issuedRecord struct {
	Account  string     `json:"account,omitempty"`
	Machine  string     `json:"machine,omitempty"`
	Node     xos.NodeID `json:"node,omitempty"`
	Source   string     `json:"source,omitempty"`
	Key      string     `json:"key,omitempty"` // fingerprint
	Issued   time.Time  `json:"issued"`
	NotAfter time.Time  `json:"not_after"`
	// Of a delegated one, see vom.Origin.
	Mode  vom.Mode  `json:"mode,omitempty"`
	Depth int       `json:"depth,omitempty"`
	Job   bool      `json:"job,omitempty"`
	Until time.Time `json:"until,omitzero"`
	Via   string    `json:"via,omitempty"`
}

// keepIssued is for how long after its end a certificate can be explained.
const keepIssued = 24 * time.Hour

// backdate is by how much NotBefore precedes Issued.
const backdate = 50 * time.Second

// Login checks a user's proof, spends her token if it was one, and gives what
// may be certified: all in one transaction, so that a token that failed to
// give a certificate is not spent.
func (r *Records) Login(ctx context.Context, a xos.Account, p vom.Proof) (vom.Identity, error) {
	if (p.Password == "") == (p.Token == "") {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "give a password or an enrolment token").WithHint("xos login asks for it")
	}
	if p.NewPassword != "" && p.NewPassword == p.Password {
		return vom.Identity{}, xos.Errorf(xos.Invalid, "the new password is the old one")
	}
	var checked string // the encoding that the password was compared with
	if p.Password != "" {
		var err error
		if checked, err = r.check(ctx, a.User, p.Password); err != nil {
			return vom.Identity{}, err
		}
	}
	var newHash string
	if p.NewPassword != "" {
		var err error
		if p.Token != "" { // it is looked at before the costly hash, and again below
			err = r.db.View(ctx, func(t kv.Txn) error { return r.needToken(t, a.User, p.Token) })
			if err != nil {
				return vom.Identity{}, err
			}
		}
		if newHash, err = r.hash(ctx, p.NewPassword); err != nil {
			return vom.Identity{}, err
		}
	}
	id, err := r.issue(ctx, a, vom.Origin{}, func(t kv.Txn, _ memberRecord, id *vom.Identity) error {
		id.Key = p.Key
		u, ok, err := read[userRecord](t, keyUser(a.User))
		if err != nil {
			return err
		}
		if !ok {
			return wrong()
		}
		if p.Token == "" && u.Password != checked {
			return wrong() // it was changed meanwhile
		}
		if p.Token != "" {
			if err := r.needToken(t, a.User, p.Token); err != nil {
				return err
			}
		}
		if newHash != "" {
			u.Password = newHash
			if err := write(t, keyUser(a.User), u); err != nil {
				return err
			}
		}
		if p.Token == "" {
			return nil
		}
		return t.Delete([]byte(tokenKey(a.User, p.Token)))
	})
	if err == nil && newHash != "" {
		r.guesses.forget(a.User) // they were of another password
	}
	return id, err
}

// check compares a user's password, and gives the encoding that it was compared
// with.
func (r *Records) check(ctx context.Context, user xos.UserID, password string) (encoded string, err error) {
	end, err := r.guesses.begin(ctx, user, r.now)
	if err != nil {
		return "", err
	}
	result := untold
	defer func() { end(result) }()
	err = r.db.View(ctx, func(t kv.Txn) error {
		u, _, err := read[userRecord](t, keyUser(user))
		encoded = u.Password
		return err
	})
	if err != nil {
		return "", err
	}
	ok, err := r.matches(ctx, password, encoded)
	if err != nil {
		return "", err
	}
	if !ok {
		result = failed
		return "", wrong()
	}
	result = passed
	return encoded, nil
}

// wrong is the one answer to whoever has not proved who she is: it does not
// tell which users exist.
func wrong() error {
	return xos.Errorf(xos.Permission, "wrong user, password or token").
		WithHint("an administrator can give a new token: xos user token USER")
}

func (r *Records) needToken(t kv.Txn, user xos.UserID, secret string) error {
	tok, ok, err := read[tokenRecord](t, tokenKey(user, secret))
	if err == nil && (!ok || r.now().After(tok.Expires)) {
		err = wrong()
	}
	return err
}

// Renew gives what may be certified for the bearer of a verified certificate,
// on the key that is set in it: the new one.
func (r *Records) Renew(ctx context.Context, id vom.Identity) (vom.Identity, error) {
	if id.Node != "" {
		return vom.Identity{}, xos.Errorf(xos.Permission, "a delegated credential cannot be renewed by itself")
	}
	return r.issue(ctx, id.Account, vom.Origin{}, func(_ kv.Txn, _ memberRecord, fresh *vom.Identity) error {
		fresh.Key = id.Key
		return nil
	})
}

// issue makes an identity from the membership record and notes it there.
func (r *Records) issue(ctx context.Context, a xos.Account, from vom.Origin, check func(kv.Txn, memberRecord, *vom.Identity) error) (vom.Identity, error) {
	var id vom.Identity
	err := r.db.Update(ctx, func(t kv.Txn) error {
		m, ok, err := read[memberRecord](t, keyMember(a))
		if err != nil {
			return err
		}
		if err := r.member(t, a, ok); err != nil {
			// Who has not proved herself learns nothing of memberships.
			if proof := check(t, m, &vom.Identity{NotAfter: r.now().Add(r.cfg.UserTTL)}); proof != nil {
				return proof
			}
			return err
		}
		last, err := floor(t, a)
		if err != nil {
			return err
		}
		issued := later(r.now(), last.Add(time.Nanosecond))
		id = vom.Identity{Attributes: m.attributes(a), Serial: newSerial(), Issued: issued,
			NotBefore: issued.Add(-backdate).Truncate(time.Second),
			NotAfter:  issued.Add(r.cfg.UserTTL).Truncate(time.Second)}
		if err := check(t, m, &id); err != nil {
			return err
		}
		if err := r.notBanned(t, id); err != nil {
			return err
		}
		if err := note(t, id.Serial, issuedRecord{Account: a.String(), Node: id.Node, Source: id.Source, Key: id.Key, Issued: issued, NotAfter: id.NotAfter,
			Mode: from.Mode, Depth: from.Depth, Job: from.Job, Until: from.Until, Via: from.Via}); err != nil {
			return err
		}
		m.LastIssued = later(m.LastIssued, issued)
		return write(t, keyMember(a), m)
	})
	if err != nil {
		return vom.Identity{}, err
	}
	return id, nil
}

// member says why an account is no member.
func (r *Records) member(t kv.Txn, a xos.Account, ok bool) error {
	if ok {
		return nil
	}
	rev, revoked, err := read[revocationRecord](t, prefixRevoked+"account/"+string(a.VO)+"/"+string(a.User))
	if err != nil {
		return err
	}
	if revoked {
		return xos.Errorf(xos.Permission, "%s is no member of %s: %s", a.User, a.VO, rev.Reason)
	}
	return xos.Errorf(xos.Permission, "%s is no member of %s", a.User, a.VO).
		WithHint("an administrator adds members: xos vo member add %s %s", a.VO, a.User)
}

// note records an issue; the serial is new.
func note(t kv.Txn, serial string, rec issuedRecord) error {
	if _, taken, err := t.Get([]byte(prefixIssued + serial)); err != nil || taken {
		return or(err, xos.Errorf(xos.Conflict, "the serial %s was taken; try again", serial))
	}
	return write(t, prefixIssued+serial, rec)
}

// newSerial gives 63 random bits, so that one number fits X.509 and OpenSSH
// alike: revoking it ends both certificates of an issue.
func newSerial() string {
	var b [8]byte
	rand.Read(b[:])
	return strconv.FormatUint(max(binary.BigEndian.Uint64(b[:])>>1, 1), 10)
}
