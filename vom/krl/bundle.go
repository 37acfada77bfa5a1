package krl

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// FromBundle gives the list for a machine's sshd: what the bundle refuses of
// the users' authorities. Sshd then refuses it by itself, whether or not the
// machine's other services answer.
func FromBundle(b vom.Bundle, now time.Time) (*List, error) {
	l := &List{Version: b.Epoch, Generated: now.Truncate(time.Second), Comment: "XtreemOS"}
	var serials []uint64
	var ids []string
	serial := func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n == 0 {
			// Beyond 64 bits it is no OpenSSH certificate's.
			if strings.Trim(s, "0123456789") != "" {
				return xos.Errorf(xos.Invalid, "%.80q is no serial", s)
			}
			return nil
		}
		serials = append(serials, n)
		return nil
	}
	for _, s := range b.RevokedSerials {
		if err := serial(s); err != nil {
			return nil, err
		}
	}
	for _, r := range b.Revocations {
		if r.Serial != "" {
			if err := serial(r.Serial); err != nil {
				return nil, err
			}
		}
	}
	for _, ban := range b.Bans {
		if !ban.InForce(now) {
			continue
		}
		if err := ban.Check(); err != nil {
			return nil, err
		}
		switch ban.Kind {
		case vom.BanUser:
			for _, vo := range b.VOs {
				ids = append(ids, xos.Account{User: xos.UserID(ban.Subject), VO: vo.Name}.String())
			}
		case vom.BanAccount:
			ids = append(ids, ban.Subject)
		case vom.BanCertificate:
			if err := serial(ban.Subject); err != nil {
				return nil, err
			}
		case vom.BanKey:
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimPrefix(ban.Subject, "SHA256:"))
			if err != nil || len(raw) != 32 {
				return nil, xos.Errorf(xos.Invalid, "%.80q is no fingerprint", ban.Subject)
			}
			l.Fingerprints = append(l.Fingerprints, [32]byte(raw))
		}
	}
	for _, line := range b.SSHUserCAs {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, xos.Errorf(xos.Invalid, "an OpenSSH authority of the bundle is malformed: %w", err)
		}
		l.CAs = append(l.CAs, CA{Key: key.Marshal(), Serials: serials, KeyIDs: ids})
	}
	return l, nil
}

// Due tells lists apart that must be written anew: it changes with the bundle,
// and when a ban is over.
func Due(b vom.Bundle, now time.Time) string {
	in := 0
	for _, ban := range b.Bans {
		if ban.InForce(now) {
			in++
		}
	}
	return strconv.FormatUint(b.Epoch, 10) + "/" + strconv.Itoa(in)
}
