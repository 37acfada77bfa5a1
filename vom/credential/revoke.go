package credential

import (
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Revoked finds a revocation that refuses a user's certificate.
func Revoked(list []vom.Revocation, id vom.Identity) (vom.Revocation, bool) {
	for _, r := range list {
		if (r.User == "" || r.User == id.User) &&
			(r.VO == "" || r.VO == id.VO) &&
			(r.Serial == "" || r.Serial == id.Serial || r.Serial == id.Source) &&
			(r.Node == "" || r.Node == id.Node) &&
			!id.Issued.After(r.Before) {
			return r, true
		}
	}
	return vom.Revocation{}, false
}

// revokedMachine does the same for a machine's: those that name a user or a
// VO do not concern it.
func revokedMachine(list []vom.Revocation, m vom.Machine, issued time.Time) (vom.Revocation, bool) {
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

func refusal(who string, r vom.Revocation) error {
	reason := r.Reason
	if reason == "" {
		reason = "no reason was given"
	}
	return xos.Errorf(xos.Permission, "the certificate of %s was revoked: %s", who, reason)
}
