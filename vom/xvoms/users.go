package xvoms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type userRecord struct {
	FullName string    `json:"full_name,omitempty"`
	Created  time.Time `json:"created"`
	Password string    `json:"password,omitempty"` // encoded hash; "": none
	Member   bool      `json:"member,omitempty"`   // ever of any VO: she may have files
}

type tokenRecord struct {
	Expires time.Time `json:"expires"`
}

// User is a user with what administrators see of her.
type User struct {
	Name     xos.UserID
	FullName string
	Created  time.Time
	VOs      []xos.VOName
}

// Token is a secret given out once; only its hash is kept.
type Token struct {
	Secret  string
	Expires time.Time
}

// tokenTTL is how long an enrolment token serves by default.
const (
	tokenTTL    = 7 * 24 * time.Hour
	maxTokenTTL = 90 * 24 * time.Hour
)

// CreateUser makes a user. Without a password she gets a one-time enrolment
// token. The name of a deleted user who may have left files is not given to
// another: she would own them.
func (r *Records) CreateUser(ctx context.Context, name xos.UserID, fullName, password string) (Token, error) {
	if err := goodName("user", string(name)); err != nil {
		return Token{}, err
	}
	if !goodFullName(fullName) {
		return Token{}, xos.Errorf(xos.Invalid, "the full name must be at most 128 printable characters without ':' and ','")
	}
	u := userRecord{FullName: fullName, Created: r.now()}
	var token Token
	var tokenKey string
	if password != "" {
		var err error
		if u.Password, err = r.hash(ctx, password); err != nil {
			return Token{}, err
		}
	} else {
		token, tokenKey = newToken(name, r.now().Add(tokenTTL))
	}
	err := r.db.Update(ctx, func(t kv.Txn) error {
		if _, ok, err := read[userRecord](t, keyUser(name)); err != nil || ok {
			return or(err, xos.Errorf(xos.Exists, "the user %q exists already", name))
		}
		if _, gone, err := t.Get([]byte(prefixGone + string(name))); err != nil || gone {
			return or(err, xos.Errorf(xos.Exists, "the name %q belonged to a deleted user, whose files a new one would own", name).
				WithHint("choose another name"))
		}
		if tokenKey != "" {
			if err := write(t, tokenKey, tokenRecord{token.Expires}); err != nil {
				return err
			}
		}
		return write(t, keyUser(name), u)
	})
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// SetPassword sets a user's password; "" takes it away.
func (r *Records) SetPassword(ctx context.Context, name xos.UserID, password string) error {
	var hash string
	if password != "" {
		var err error
		if hash, err = r.hash(ctx, password); err != nil {
			return err
		}
	}
	err := r.db.Update(ctx, func(t kv.Txn) error {
		u, err := needUser(t, name)
		if err != nil {
			return err
		}
		u.Password = hash
		return write(t, keyUser(name), u)
	})
	if err == nil {
		r.guesses.forget(name)
	}
	return err
}

// CreateToken makes one more enrolment token. ttl 0 is a week.
func (r *Records) CreateToken(ctx context.Context, name xos.UserID, ttl time.Duration) (Token, error) {
	if ttl == 0 {
		ttl = tokenTTL
	}
	if ttl < 0 || ttl > maxTokenTTL {
		return Token{}, xos.Errorf(xos.Invalid, "a token may serve for at most %v", maxTokenTTL)
	}
	token, key := newToken(name, r.now().Add(ttl))
	err := r.db.Update(ctx, func(t kv.Txn) error {
		if _, err := needUser(t, name); err != nil {
			return err
		}
		return write(t, key, tokenRecord{token.Expires})
	})
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// DeleteUser removes a user from all VOs and from the records.
func (r *Records) DeleteUser(ctx context.Context, name xos.UserID, by string) error {
	return r.change(ctx, func(t kv.Txn) error {
		u, err := needUser(t, name)
		if err != nil {
			return err
		}
		before := r.now()
		vos, err := vosOf(t, name)
		if err != nil {
			return err
		}
		for _, vo := range vos {
			a := xos.Account{User: name, VO: vo}
			m, _, err := read[memberRecord](t, keyMember(a))
			if err != nil {
				return err
			}
			before = later(before, m.LastIssued)
			if err := deleteMember(t, a); err != nil {
				return err
			}
		}
		var tokens []string
		err = each(t, prefixToken+string(name)+"/", func(rest string, _ tokenRecord) error {
			tokens = append(tokens, prefixToken+string(name)+"/"+rest)
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range append(tokens, keyUser(name)) {
			if err := t.Delete([]byte(k)); err != nil {
				return err
			}
		}
		if u.Member {
			if err := write(t, prefixGone+string(name), before); err != nil {
				return err
			}
		}
		rev := vom.Revocation{User: name, Before: before, Reason: "the user " + string(name) + " was deleted " + by}
		if err := r.revoke(t, "user/"+string(name), rev, MaxUserTTL); err != nil {
			return err
		}
		return bump(t)
	})
}

// ListUsers gives all users, by name.
func (r *Records) ListUsers(ctx context.Context) (users []User, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		users = nil
		vos := map[string][]xos.VOName{}
		err := each(t, prefixMemberOf, func(rest string, _ struct{}) error {
			user, vo, _ := strings.Cut(rest, "/")
			vos[user] = append(vos[user], xos.VOName(vo))
			return nil
		})
		if err != nil {
			return err
		}
		return each(t, prefixUser, func(name string, u userRecord) error {
			users = append(users, User{Name: xos.UserID(name), FullName: u.FullName, Created: u.Created, VOs: vos[name]})
			return nil
		})
	})
	return users, err
}

func needUser(t kv.Txn, name xos.UserID) (userRecord, error) {
	u, ok, err := read[userRecord](t, keyUser(name))
	if err == nil && !ok {
		err = xos.Errorf(xos.NotFound, "there is no user %.80q", string(name)).WithHint("see: xos user list")
	}
	return u, err
}

func vosOf(t kv.Txn, name xos.UserID) (vos []xos.VOName, err error) {
	err = each(t, prefixMemberOf+string(name)+"/", func(vo string, _ struct{}) error {
		vos = append(vos, xos.VOName(vo))
		return nil
	})
	return vos, err
}

// newToken gives a token of 160 bits and the key of its record.
func newToken(user xos.UserID, expires time.Time) (Token, string) {
	secret := rand.Text() + rand.Text()[:6]
	return Token{secret, expires}, tokenKey(user, secret)
}

func tokenKey(user xos.UserID, secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return prefixToken + string(user) + "/" + hex.EncodeToString(sum[:])
}

// goodFullName keeps a passwd line whole: it becomes its GECOS field.
func goodFullName(s string) bool {
	if len(s) > 128 || !utf8.ValidString(s) || strings.ContainsAny(s, ":,\n") {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
