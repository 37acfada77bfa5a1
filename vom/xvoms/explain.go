package xvoms

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

// maxSerial is the most digits of a serial: 20 octets (RFC 5280).
const maxSerial = 49

// Explain says, for a person to read, what the records know of an account, of
// a certificate, or of both; allowed is whether the account may get and use
// certificates. At least one must be given.
func (r *Records) Explain(ctx context.Context, account, serial string) (allowed bool, lines []string, err error) {
	if len(serial) > maxSerial || strings.Trim(serial, "0123456789") != "" {
		return false, nil, xos.Errorf(xos.Invalid, "%.80q is no certificate's serial number", serial)
	}
	now := r.now()
	err = r.db.View(ctx, func(t kv.Txn) error {
		allowed, lines = true, nil
		if serial != "" {
			issued, ok, err := read[issuedRecord](t, prefixIssued+serial)
			if err != nil {
				return err
			}
			switch {
			case !ok:
				allowed = false
				lines = append(lines, fmt.Sprintf("certificate %s: not issued here, or forgotten", serial))
			case account != "" && issued.Account != account:
				return xos.Errorf(xos.NotFound, "certificate %s is not one of %s", serial, account)
			default:
				account = issued.Account
				lines = append(lines, issued.line(serial, now))
				allowed = now.Before(issued.NotAfter)
			}
		}
		if account == "" {
			return nil
		}
		a, err := xos.ParseAccount(account)
		if err != nil {
			return err
		}
		ok, more, err := explainAccount(t, a, now)
		if err != nil {
			return err
		}
		why, revoked, err := explainRevoked(t, a, serial)
		if err != nil {
			return err
		}
		lines = append(append(why, more...), lines...)
		allowed = allowed && ok && !revoked
		return nil
	})
	return allowed, lines, err
}

func explainAccount(t kv.Txn, a xos.Account, now time.Time) (bool, []string, error) {
	if _, ok, err := read[userRecord](t, keyUser(a.User)); err != nil || !ok {
		return false, []string{fmt.Sprintf("there is no user %s", a.User)}, err
	}
	if _, ok, err := read[voRecord](t, keyVO(a.VO)); err != nil || !ok {
		return false, []string{fmt.Sprintf("there is no VO %s", a.VO)}, err
	}
	m, ok, err := read[memberRecord](t, keyMember(a))
	if err != nil || !ok {
		return false, []string{fmt.Sprintf("%s is no member of %s", a.User, a.VO)}, err
	}
	attr := m.attributes(a)
	line := fmt.Sprintf("%s is a member of %s since %s; groups %s", a.User, a.VO, m.Since.Format(time.RFC3339), strings.Join(attr.GroupNames(), " "))
	for i, role := range m.Roles {
		if i == 0 {
			line += "; roles"
		}
		line += " " + string(role)
	}
	lines := []string{line}
	if !m.LastIssued.IsZero() {
		lines = append(lines, fmt.Sprintf("the last certificate was issued at %s", m.LastIssued.Format(time.RFC3339)))
	}
	return true, lines, nil
}

// explainRevoked tells the revocations of an account, and whether one of them
// refuses the certificate asked for. One of an account that is a member again
// refuses older certificates only.
func explainRevoked(t kv.Txn, a xos.Account, serial string) (lines []string, refused bool, err error) {
	issued, known, err := read[issuedRecord](t, prefixIssued+serial)
	if err != nil {
		return nil, false, err
	}
	keys := []string{"account/" + string(a.VO) + "/" + string(a.User), "user/" + string(a.User), "vo/" + string(a.VO)}
	if serial != "" {
		keys = append(keys, "serial/"+serial)
	}
	if issued.Source != "" {
		keys = append(keys, "serial/"+issued.Source)
	}
	if issued.Node != "" {
		keys = append(keys, revokeMachine+string(issued.Node))
	}
	for _, k := range keys {
		rev, ok, err := read[revocationRecord](t, prefixRevoked+k)
		if err != nil {
			return nil, false, err
		}
		if !ok {
			continue
		}
		lines = append(lines, fmt.Sprintf("certificates issued up to %s are refused: %s", rev.Before.Format(time.RFC3339), rev.Reason))
		refused = refused || known && !issued.Issued.After(rev.Before)
	}
	return lines, refused, nil
}

func (i issuedRecord) line(serial string, now time.Time) string {
	who := i.Account
	if who == "" {
		who = "machine " + i.Machine
	}
	line := fmt.Sprintf("certificate %s: %s, issued at %s", serial, who, i.Issued.Format(time.RFC3339))
	if i.Node != "" {
		line += fmt.Sprintf(", delegated to %s from certificate %s", i.Node, i.Source)
	}
	if now.Before(i.NotAfter) {
		return line + ", valid until " + i.NotAfter.Format(time.RFC3339)
	}
	return line + ", expired at " + i.NotAfter.Format(time.RFC3339)
}
