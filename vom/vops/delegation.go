package vops

import (
	"context"
	"fmt"
	"time"

	cedar "github.com/cedar-policy/cedar-go"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

var _ vom.Delegations = (*Decider)(nil)

// validity is the annotation by which a VO's policy bounds how long a delegated
// credential lasts: @validity("30m") permit (…, action == Action::"delegate", …).
const validity = "validity"

// Delegation implements vom.Delegations. What no policy of the VO forbids is
// allowed. The request's context has the mode ("vouched", "signed") and the
// depth (how many machines it comes through, this one included).
func (d *Decider) Delegation(_ context.Context, who vom.Identity, action vom.Action, node xos.NodeID, from vom.Origin) (vom.Decision, time.Duration) {
	s, err := d.shard(who.VO)
	if err != nil {
		return vom.Decision{Reason: err.Error(), Rules: []string{"vo/policy"}, Policy: d.hash}, 0
	}
	entities, request := question(who, action, node, d.site.Isolation)
	request.Context = cedar.NewRecord(cedar.RecordMap{"mode": cedar.String(from.Mode), "depth": cedar.Long(int64(from.Depth)), "from": cedar.String(who.Node)})
	verdict, diag := cedar.Authorize(both(s.set), entities, request)
	out := vom.Decision{Rules: rules("vo/"+string(who.VO), diag), Policy: s.hash}
	switch {
	case len(diag.Errors) > 0:
		// Cedar leaves out a policy that fails; a prohibition must not be.
		out.Reason = fmt.Sprintf("a policy of VO %s cannot be evaluated: %v", who.VO, diag.Errors[0])
		return out, 0
	case verdict != cedar.Allow:
		out.Reason = fmt.Sprintf("VO %s forbids %s on %s (%s, machine %d in a row)", who.VO, action, node, from.Mode, from.Depth)
		return out, 0
	}
	out.Allow, out.Reason = true, fmt.Sprintf("VO %s does not forbid %s", who.VO, action)
	var longest time.Duration
	for _, r := range diag.Reasons {
		if p := s.set.Get(r.PolicyID); p != nil {
			// Checked when the policy was set; 0 if it has none.
			if v, err := validityOf(p); err == nil && v > 0 && (longest == 0 || v < longest) {
				longest = v
			}
		}
	}
	return out, longest
}

func validityOf(p *cedar.Policy) (time.Duration, error) {
	text, ok := p.Annotations()[validity]
	if !ok {
		return 0, nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v < vom.MinDelegation {
		return 0, xos.Errorf(xos.Invalid, "@validity(%.40q) is no duration of at least %v", string(text), vom.MinDelegation)
	}
	if p.Effect() != cedar.Permit {
		return 0, xos.Errorf(xos.Invalid, "@validity stands before a policy that forbids; it belongs to one that permits")
	}
	return v, nil
}
