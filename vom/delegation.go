package vom

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// Actions that a VO's policy need not permit, only may forbid.
const (
	// ActionDelegate: a machine (the resource) acts for a member.
	ActionDelegate Action = "delegate"
	// ActionSSO: from a session on that machine she goes on to others by ssh,
	// without being asked again (single sign-on).
	ActionSSO Action = "sso"
)

// Mode is how the first machine of a delegation got it.
type Mode string

const (
	// Vouched: the machine says that she logged in there.
	Vouched Mode = "vouched"
	// Signed: she signed it, by her ssh-agent.
	Signed Mode = "signed"
)

// Bounds of delegation.
const (
	// MaxDepth is the most machines that a delegation comes through, one after
	// the other; a VO's policy may want fewer.
	MaxDepth = 4
	// MinDelegation is the shortest validity of a delegated credential that a
	// VO's policy or a core's configuration may ask for.
	MinDelegation = 10 * time.Second
)

// Origin is what the records know of where a certificate comes from.
type Origin struct {
	Mode Mode
	// Depth is how many machines it has come through: 0 for a user's own.
	Depth int
	// Until is the end of the user's own certificate at its beginning, or of her
	// consent: nothing that is delegated from it outlives that.
	Until time.Time
	// Job is set where it came by a job's order: it opens no sessions.
	Job bool
	// Via is the serial of the delegated certificate on the machine before, that
	// it came from; "" on the first one.
	Via string
}

// Delegations decides whether a machine gets a credential of a member. Longest
// is how long one of them may last at most by the VO's policy; 0 if the policy
// does not say.
type Delegations interface {
	Delegation(ctx context.Context, who Identity, action Action, node xos.NodeID, from Origin) (d Decision, longest time.Duration)
}
