package xvoms

import (
	"context"
	"fmt"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// Rules says what each rule of the records says of an account, of a certificate
// by its serial, or of both; the account may be left out where a serial is
// known. It decides nothing.
func (r *Records) Rules(ctx context.Context, account, serial string) (verdicts []vom.Verdict, err error) {
	now := r.now()
	err = r.db.View(ctx, func(t kv.Txn) error {
		verdicts = nil
		say := func(rule vom.Rule, refused bool, format string, args ...any) {
			verdicts = append(verdicts, vom.Verdict{Rule: rule, Refused: refused, Text: fmt.Sprintf(format, args...)})
		}
		issued, known, err := read[issuedRecord](t, prefixIssued+serial)
		if err != nil {
			return err
		}
		if account == "" {
			account = issued.Account
		}
		id := issued.identity(serial)
		if a, err := xos.ParseAccount(account); err == nil {
			member, lines, err := explainAccount(t, a, now)
			if err != nil {
				return err
			}
			say(vom.RuleMember, !member, "%s", lines[0])
			id.Account = a
		}
		if serial != "" {
			say(vom.RuleCertificate, !known, "certificate %s: %s", serial, map[bool]string{true: "issued here", false: "not issued here, or forgotten"}[known])
		}
		if known {
			say(vom.RuleValidity, !now.Before(issued.NotAfter), "%s", issued.line(serial, now))
		}
		list, err := bans(t, now)
		if err != nil {
			return err
		}
		b := vom.Bundle{Bans: list}
		if issued.Machine == "" {
			if ban, ok := credential.Banned(list, id, now); ok {
				say(vom.RuleBan, true, "%s", credential.BanError(ban).Msg)
			} else {
				say(vom.RuleBan, false, "not banned from the grid")
			}
		} else if c, ok := issued.refused(b, serial, now); ok {
			say(vom.RuleBan, true, "banned from the grid since %s", c.At.Format(time.RFC3339))
		}
		if !known && id.User == "" {
			return nil
		}
		if b.Revocations, err = r.revocations(t, now); err != nil {
			return err
		}
		b.Bans = nil
		switch {
		case known:
			c, ok := issued.refused(b, serial, now)
			if ok {
				rev, _ := credential.Revoked(b.Revocations, id)
				say(vom.RuleRevocation, true, "revoked at %s: %s", c.At.Format(time.RFC3339), orNone(rev.Reason))
			} else {
				say(vom.RuleRevocation, false, "not revoked")
			}
		default:
			rev, ok := credential.Revoked(b.Revocations, id)
			member := len(verdicts) > 0 && !verdicts[0].Refused
			switch {
			case ok:
				// Of a member only older certificates are concerned.
				say(vom.RuleRevocation, !member, "certificates issued until %s are refused: %s", rev.Before.Format(time.RFC3339), orNone(rev.Reason))
			default:
				say(vom.RuleRevocation, false, "nothing is revoked")
			}
		}
		return nil
	})
	return verdicts, err
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason was given"
	}
	return reason
}

// revocations gives those that still count.
func (r *Records) revocations(t kv.Txn, now time.Time) (list []vom.Revocation, err error) {
	err = each(t, prefixRevoked, func(_ string, v revocationRecord) error {
		if now.Before(v.Until) {
			list = append(list, v.Revocation)
		}
		return nil
	})
	return list, err
}
