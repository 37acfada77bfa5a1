package xvoms

import (
	"context"
	"slices"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

// Origin says where a verified certificate comes from; xos.Permission for a
// delegated one that is not on record here, or whose login's is not any more,
// or that came through a machine which was removed since.
func (r *Records) Origin(ctx context.Context, id vom.Identity) (vom.Origin, error) {
	if id.Node == "" {
		return vom.Origin{Until: id.NotAfter}, nil
	}
	var from vom.Origin
	err := r.db.View(ctx, func(t kv.Txn) error {
		own, ok, err := read[issuedRecord](t, prefixIssued+id.Serial)
		if err != nil || !ok {
			return or(err, xos.Errorf(xos.Permission, "the core did not issue certificate %s of %s", id.Serial, id.Account))
		}
		first, ok, err := read[issuedRecord](t, prefixIssued+own.Source)
		if err != nil || !ok || first.Node != "" || first.Account != id.Account.String() {
			return or(err, xos.Errorf(xos.Permission, "the login of %s that certificate %s comes from is not on record", id.Account, id.Serial))
		}
		if err := r.standing(t, id.Account, own.Via); err != nil {
			return err
		}
		from = vom.Origin{Mode: own.Mode, Depth: max(own.Depth, 1), Until: first.NotAfter, Job: own.Job, Via: own.Via}
		if !own.Until.IsZero() && own.Until.Before(from.Until) {
			from.Until = own.Until
		}
		if from.Mode == "" {
			from.Mode = vom.Vouched // from before there was another
		}
		return nil
	})
	return from, err
}

// standing follows a delegation back from machine to machine: what one of them
// gave away ends with what it had, which others' certificates do not show.
func (r *Records) standing(t kv.Txn, a xos.Account, via string) error {
	for range vom.MaxDepth {
		if via == "" {
			return nil
		}
		one, ok, err := read[issuedRecord](t, prefixIssued+via)
		if err != nil || !ok || one.Node == "" || one.Account != a.String() {
			return or(err, xos.Errorf(xos.Permission, "certificate %s, which this one of %s came through, is not on record", via, a))
		}
		for _, id := range []vom.Identity{one.identity(via), {Source: via}} {
			if err := r.notBanned(t, id); err != nil {
				return err
			}
		}
		for _, what := range []string{revokeMachine + string(one.Node), "serial/" + via} {
			rev, ok, err := read[revocationRecord](t, prefixRevoked+what)
			if err != nil {
				return err
			}
			if ok && !one.Issued.After(rev.Before) {
				return xos.Errorf(xos.Permission, "the session of %s came through %s, whose certificate was revoked: %s", a, one.Node, rev.Reason)
			}
		}
		via = one.Via
	}
	return xos.Errorf(xos.Permission, "the session of %s came through too many machines", a)
}

// Delegate gives what may be certified for a node that acts for the user of a
// verified certificate: never more than that says, never for longer than the
// login's certificate behind it (as.Until).
func (r *Records) Delegate(ctx context.Context, source vom.Identity, node xos.NodeID, as vom.Origin, notAfter time.Time) (vom.Identity, error) {
	return r.issue(ctx, source.Account, as, func(_ kv.Txn, m memberRecord, id *vom.Identity) error {
		id.Node, id.Source = node, source.Serial
		if source.Source != "" {
			id.Source = source.Source
		}
		id.Groups = slices.DeleteFunc(slices.Clone(m.Groups), func(g xos.GroupName) bool { return !slices.Contains(source.Groups, g) })
		id.Roles = slices.DeleteFunc(slices.Clone(m.Roles), func(g xos.RoleName) bool { return !slices.Contains(source.Roles, g) })
		for _, end := range []time.Time{as.Until, notAfter} {
			if end.Before(id.NotAfter) {
				id.NotAfter = end.Truncate(time.Second)
			}
		}
		if !id.NotAfter.After(id.Issued) || !source.NotAfter.After(id.Issued) {
			return xos.Errorf(xos.Expired, "the credential of %s has expired", source.Account)
		}
		return nil
	})
}
