// Package vom is the contract of VO management (VOM): credentials,
// virtual organisations and policy. Its parts are
//
//   - vom/credential: how grid identity is written into X.509 and OpenSSH
//     certificates, and read and verified again;
//   - vom/cda: the credential distribution authority, which certifies users;
//   - vom/rca: the resource certification authority, which certifies machines;
//   - vom/xvoms: the records of users, VOs and memberships;
//   - vom/vops: the VO policy service: decisions, by Cedar.
//
// Machines decide on their own, from a Bundle that the core gives them and
// that they keep: a login needs no server to be up.
package vom

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
)

// Identity is who a verified certificate speaks for.
type Identity struct {
	xos.Attributes
	// Serial of the certificate, decimal, unique among those of its CA.
	Serial string
	// NotBefore and NotAfter bound its validity. NotBefore is dated back a
	// little, for machines whose clock is slow.
	NotBefore, NotAfter time.Time
	// Issued is when its authority asked the records, to the nanosecond: what
	// Revocation.Before is compared with.
	Issued time.Time
	// Node is set in a delegated credential: the only machine that may use it.
	Node xos.NodeID
	// Source is, in a delegated credential, the serial of the certificate that
	// the user showed: revoking that one ends this one too.
	Source string
	// Key is the fingerprint of the certified key, "SHA256:…", as ssh-keygen -l
	// prints it.
	Key string
}

// Service is what a machine's or service's own certificate may do.
type Service string

const (
	ServiceCore    Service = "core"    // xos-core
	ServiceNode    Service = "node"    // xos-node
	ServiceStorage Service = "storage" // xos-osd
)

// Machine is who a verified machine certificate speaks for.
type Machine struct {
	Node    xos.NodeID
	Service Service
	Serial  string
	Key     string // as Identity.Key
}

// Bundle is all a machine needs to verify credentials and to decide on logins
// and jobs by itself. It is stored as JSON, readable by root only.
type Bundle struct {
	// Epoch grows with every change.
	Epoch uint64 `json:"epoch"`
	// Issued is when the core vouched for this being the latest.
	Issued time.Time `json:"issued"`
	// Offline is how long after Issued the bundle may serve without news.
	Offline time.Duration `json:"offline"`
	// X509Roots are PEM certificates of users' and machines' authorities.
	X509Roots []string `json:"x509_roots"`
	// SSHUserCAs and SSHHostCAs are public keys in authorized_keys format.
	SSHUserCAs []string `json:"ssh_user_cas"`
	SSHHostCAs []string `json:"ssh_host_cas"`
	// VOs are those that exist.
	VOs []VO `json:"vos"`
	// Revocations refuse certificates that are otherwise valid. One is kept
	// until the last certificate it could concern has expired.
	Revocations []Revocation `json:"revocations"`
	// Bans keep out whatever certificates there are.
	Bans []Ban `json:"bans,omitempty"`
	// RevokedSerials are the certificates not yet expired that Revocations and
	// Bans refuse, for lists that know only numbers: sshd's. Verification does
	// not need them.
	RevokedSerials []string `json:"revoked_serials,omitempty"`
	// CoreKey verifies capabilities of the metadata service: an ed25519 public
	// key, base64 in JSON.
	CoreKey []byte `json:"core_key"`
}

// VO is a virtual organisation as machines know it.
type VO struct {
	Name   xos.VOName      `json:"name"`
	Groups []xos.GroupName `json:"groups"`
	// Policy is the VO's Cedar policy set; empty means the default one: its
	// members may log in and start jobs.
	Policy string `json:"policy"`
	// Isolation is what the VO shares with others on machines, forbids to its own
	// and has of devices there: the text that nodeguard/isolation reads. Empty
	// shares nothing.
	Isolation string `json:"isolation,omitempty"`
	// Removal is what becomes of what removed members have running.
	Removal Removal `json:"removal,omitzero"`
	// Offline is how long machines may serve the VO without news, where that is
	// less than the bundle's; 0: as long as that.
	Offline time.Duration `json:"offline,omitempty"`
}

// Revocation refuses certificates. A zero field matches any.
type Revocation struct {
	User xos.UserID `json:"user,omitempty"`
	VO   xos.VOName `json:"vo,omitempty"`
	// Serial of a single certificate, and of all delegated from it.
	Serial string `json:"serial,omitempty"`
	// Node is a machine that may no longer take part.
	Node xos.NodeID `json:"node,omitempty"`
	// Before: certificates issued (Identity.Issued) at or before this are refused.
	Before time.Time `json:"before"`
	// Reason is for the user: "removed from physics by root".
	Reason string `json:"reason"`
	// Fate is what becomes of what runs, until Grace. Until then the credentials
	// that machines hold serve for the files and jobs of what does.
	Fate  Fate      `json:"fate,omitempty"`
	Grace time.Time `json:"grace,omitzero"`
}

// Action is what a policy decides about.
type Action string

const (
	ActionLogin Action = "login"
	ActionRun   Action = "run" // start a job
)

// Decision is the answer of policy, with what explains it.
type Decision struct {
	Allow bool `json:"allow"`
	// Reason is for the user; Rules name the policies that took part.
	Reason string   `json:"reason"`
	Rules  []string `json:"rules,omitempty"`
	// Policy is the hash of the policy set that decided.
	Policy string `json:"policy,omitempty"`
}

// Decider decides. Its answer for an error is always a refusal.
type Decider interface {
	Decide(ctx context.Context, who Identity, action Action, node xos.NodeID) Decision
}
