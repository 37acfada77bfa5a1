package credential

import (
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Revoked finds a revocation that refuses a user's certificate: where there are
// several, one that ends what runs.
func Revoked(list []vom.Revocation, id vom.Identity) (vom.Revocation, bool) {
	var found vom.Revocation
	var ok bool
	for _, r := range list {
		if (r.User == "" || r.User == id.User) &&
			(r.VO == "" || r.VO == id.VO) &&
			(r.Serial == "" || r.Serial == id.Serial || r.Serial == id.Source) &&
			(r.Node == "" || r.Node == id.Node) &&
			!id.Issued.After(r.Before) {
			if r.Fate == "" || r.Fate == vom.FateEnd {
				return r, true
			}
			if !ok || r.Fate == vom.FateFreeze {
				found, ok = r, true
			}
		}
	}
	return found, ok
}

// RevokedMachine does the same for a machine's: those that name a user or a
// VO do not concern it.
func RevokedMachine(list []vom.Revocation, m vom.Machine, issued time.Time) (vom.Revocation, bool) {
	for _, r := range list {
		if r.User == "" && r.VO == "" &&
			(r.Serial == "" || r.Serial == m.Serial) &&
			(r.Node == "" || r.Node == m.Node) &&
			!issued.After(r.Before) {
			return r, true
		}
	}
	return vom.Revocation{}, false
}

// Banned finds a ban that keeps a user's certificate out.
func Banned(list []vom.Ban, id vom.Identity, now time.Time) (vom.Ban, bool) {
	for _, b := range list {
		if b.InForce(now) && (b.Kind == vom.BanUser && b.Subject == string(id.User) ||
			b.Kind == vom.BanAccount && b.Subject == id.Account.String() ||
			b.Kind == vom.BanNode && id.Node != "" && b.Subject == string(id.Node) ||
			b.Kind == vom.BanKey && id.Key != "" && b.Subject == id.Key ||
			b.Kind == vom.BanCertificate && id.Serial != "" && (b.Subject == id.Serial || b.Subject == id.Source)) {
			return b, true
		}
	}
	return vom.Ban{}, false
}

// BannedMachine does the same for a machine's.
func BannedMachine(list []vom.Ban, m vom.Machine, now time.Time) (vom.Ban, bool) {
	for _, b := range list {
		if b.InForce(now) && (b.Kind == vom.BanNode && b.Subject == string(m.Node) ||
			b.Kind == vom.BanKey && m.Key != "" && b.Subject == m.Key ||
			b.Kind == vom.BanCertificate && m.Serial != "" && b.Subject == m.Serial) {
			return b, true
		}
	}
	return vom.Ban{}, false
}

func reason(s string) string {
	if s == "" {
		return "no reason was given"
	}
	return s
}

func refusal(who string, r vom.Revocation) error {
	return vom.By(vom.RuleRevocation, xos.Errorf(xos.Permission, "the certificate of %s was revoked: %s", who, reason(r.Reason)))
}

func banned(b vom.Ban) error {
	return vom.By(vom.RuleBan, BanError(b))
}

// BanError says of whom or what a ban keeps out that it does.
func BanError(b vom.Ban) *xos.Error {
	err := xos.Errorf(xos.Permission, "the %s %s is banned from the grid: %s", b.Kind, b.Subject, reason(b.Reason))
	if !b.Until.IsZero() {
		err.Msg += "; until " + b.Until.UTC().Format(time.RFC3339)
	}
	return err
}
