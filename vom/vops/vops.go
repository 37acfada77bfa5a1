// Package vops is the VO policy service (VOPS): it decides, by Cedar policies
// (docs.cedarpolicy.com), what a member may do on a machine. The site forbids,
// the VO permits; neither can do the other's part, so that the owner of a
// machine always keeps control.
//
// A request has the principal User::"alice@physics" with the attributes user,
// vo, groups and roles, the action Action::"login" or Action::"run", and the
// resource Node::"node1" with the attribute isolation: the level at which its
// kernel keeps VOs apart at that moment, "A", "C" or "none".
// Its context.from is the machine whose session she comes from, "" where she
// shows a certificate of her own. For the actions "delegate" and "sso" see
// Delegation.
package vops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	cedar "github.com/cedar-policy/cedar-go"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// defaultPolicy is a VO's where it has set none.
const defaultPolicy = `permit (principal, action in [Action::"login", Action::"run"], resource);`

// maxPolicy bounds a policy's text.
const maxPolicy = 64 << 10

// Site is the policy of a machine's owner.
type Site struct {
	// Policy is a Cedar policy set of "forbid" policies; empty forbids nothing.
	Policy string
	// VOs are those served; "*" is every one.
	VOs []xos.VOName
	// Banned accounts ("alice@physics") and users ("alice") are refused.
	Banned []string
	// Isolation tells the machine's level; nil is none, and policies that ask
	// for it refuse.
	Isolation func() string
}

// Decider implements vom.Decider. It is safe for concurrent use.
type Decider struct {
	bundle func() vom.Bundle
	site   Site
	forbid *cedar.PolicySet // the site's, with permission for all else
	hash   string

	mu     sync.Mutex
	epoch  uint64
	parsed map[xos.VOName]*shard
}

// shard is one VO's policies, parsed.
type shard struct {
	set  *cedar.PolicySet
	hash string
}

var _ vom.Decider = (*Decider)(nil)

// New makes a decider on the latest bundle; xos.Invalid if the site's policy
// is none or permits something.
func New(bundle func() vom.Bundle, site Site) (*Decider, error) {
	d := &Decider{bundle: bundle, site: site, parsed: map[xos.VOName]*shard{}}
	set, err := parse("site", site.Policy)
	if err != nil {
		return nil, err
	}
	for id, p := range set.All() {
		if p.Effect() != cedar.Forbid {
			return nil, xos.Errorf(xos.Invalid, "the site's policy %s permits; a site only forbids, the VO permits", id)
		}
	}
	d.forbid, d.hash = both(set), digest(site.Policy)
	return d, nil
}

// Check says why a policy cannot be a VO's, or nil.
func Check(policy string) error {
	_, err := parse("policy", policy)
	return err
}

func parse(name, text string) (*cedar.PolicySet, error) {
	if len(text) > maxPolicy {
		return nil, xos.Errorf(xos.TooLarge, "a policy of %d bytes; at most %d", len(text), maxPolicy)
	}
	set, err := cedar.NewPolicySetFromBytes(name, []byte(text))
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "the %s is no Cedar policy set: %w", name, err)
	}
	for _, p := range set.All() {
		if _, err := validityOf(p); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// Decide implements vom.Decider.
func (d *Decider) Decide(_ context.Context, who vom.Identity, action vom.Action, node xos.NodeID) vom.Decision {
	refuse := func(rule, format string, args ...any) vom.Decision {
		return vom.Decision{Reason: fmt.Sprintf(format, args...), Rules: []string{rule}, Policy: d.hash}
	}
	if !d.serves(who.VO) {
		return refuse("site/vos", "%s does not serve VO %s", node, who.VO)
	}
	for _, banned := range d.site.Banned {
		if banned == who.Account.String() || banned == string(who.User) {
			return refuse("site/banned", "%s is banned from %s by its owner", banned, node)
		}
	}
	s, err := d.shard(who.VO)
	if err != nil {
		return refuse("vo/policy", "%v", err)
	}
	entities, request := question(who, action, node, d.site.Isolation)
	verdict, diag := cedar.Authorize(d.forbid, entities, request)
	if len(diag.Errors) > 0 {
		// Cedar leaves out a policy that fails; a prohibition must not be.
		return refuse("site/policy", "a policy of %s cannot be evaluated: %v", node, diag.Errors[0])
	}
	if verdict != cedar.Allow {
		return vom.Decision{Reason: "the owner of " + string(node) + " forbids it", Rules: rules("site", diag), Policy: d.hash}
	}
	verdict, diag = cedar.Authorize(s.set, entities, request)
	if len(diag.Errors) > 0 {
		return refuse("vo/policy", "a policy of VO %s cannot be evaluated: %v", who.VO, diag.Errors[0])
	}
	decision := vom.Decision{Allow: verdict == cedar.Allow, Rules: rules("vo/"+string(who.VO), diag), Policy: d.hash + "+" + s.hash}
	switch {
	case decision.Allow:
		decision.Reason = fmt.Sprintf("VO %s permits %s", who.VO, action)
	case len(diag.Reasons) > 0:
		decision.Reason = fmt.Sprintf("VO %s forbids %s", who.VO, action)
	default:
		decision.Reason = fmt.Sprintf("no policy of VO %s permits %s", who.VO, action)
	}
	return decision
}

// Serves reports whether the machine serves a VO: its owner lists it, and the
// grid has it.
func (d *Decider) Serves(vo xos.VOName) bool {
	if !d.serves(vo) {
		return false
	}
	for _, v := range d.bundle().VOs {
		if v.Name == vo {
			return true
		}
	}
	return false
}

func (d *Decider) serves(vo xos.VOName) bool {
	for _, v := range d.site.VOs {
		if v == vo || v == "*" {
			return true
		}
	}
	return false
}

// shard parses a VO's policies once for each epoch of the bundle.
func (d *Decider) shard(vo xos.VOName) (*shard, error) {
	b := d.bundle()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch != b.Epoch {
		d.epoch, d.parsed = b.Epoch, map[xos.VOName]*shard{}
	}
	if s := d.parsed[vo]; s != nil {
		return s, nil
	}
	for _, v := range b.VOs {
		if v.Name != vo {
			continue
		}
		text := v.Policy
		if text == "" {
			text = defaultPolicy
		}
		set, err := parse(string(vo), text)
		if err != nil {
			return nil, err
		}
		s := &shard{set, digest(text)}
		d.parsed[vo] = s
		return s, nil
	}
	return nil, xos.Errorf(xos.Permission, "there is no VO %s", vo)
}

// both adds to prohibitions the permission of everything else.
func both(forbid *cedar.PolicySet) *cedar.PolicySet {
	set := cedar.NewPolicySet()
	for id, p := range forbid.All() {
		set.Add(id, p)
	}
	var all cedar.Policy
	if err := all.UnmarshalCedar([]byte("permit (principal, action, resource);")); err != nil {
		panic(err) // a constant
	}
	set.Add("anything-else", &all)
	return set
}

// question puts a request into Cedar's terms.
func question(who vom.Identity, action vom.Action, node xos.NodeID, isolation func() string) (cedar.EntityMap, cedar.Request) {
	principal := cedar.NewEntityUID("User", cedar.String(who.Account.String()))
	resource := cedar.NewEntityUID("Node", cedar.String(node))
	machine := cedar.RecordMap{}
	if isolation != nil {
		machine["isolation"] = cedar.String(isolation())
	}
	var groups, roles []cedar.Value
	for _, g := range who.Groups {
		groups = append(groups, cedar.String(g))
	}
	for _, r := range who.Roles {
		roles = append(roles, cedar.String(r))
	}
	entities := cedar.EntityMap{
		principal: cedar.Entity{UID: principal, Attributes: cedar.NewRecord(cedar.RecordMap{
			"user": cedar.String(who.User), "vo": cedar.String(who.VO),
			"groups": cedar.NewSet(groups...), "roles": cedar.NewSet(roles...),
		})},
		resource: cedar.Entity{UID: resource, Attributes: cedar.NewRecord(machine)},
	}
	return entities, cedar.Request{
		Principal: principal, Resource: resource,
		Action:  cedar.NewEntityUID("Action", cedar.String(action)),
		Context: cedar.NewRecord(cedar.RecordMap{"from": cedar.String(who.Node)}),
	}
}

func rules(prefix string, diag cedar.Diagnostic) []string {
	var out []string
	for _, r := range diag.Reasons {
		out = append(out, prefix+"/"+strings.TrimSpace(string(r.PolicyID)))
	}
	return out
}
