package xvoms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

type machineRecord struct {
	Joined    time.Time    `json:"joined"`
	NotAfter  time.Time    `json:"not_after"`
	Key       string       `json:"key"` // SHA-256 of the public key, hex
	Addresses []netip.Addr `json:"addresses,omitempty"`
	From      string       `json:"from,omitempty"` // address of the last request
	// LastIssued is as in memberRecord.
	LastIssued time.Time `json:"last_issued"`
}

type joinRecord struct {
	Hash    string    `json:"hash"` // SHA-256 of the secret, hex
	Uses    int64     `json:"uses"` // left
	Expires time.Time `json:"expires"`
}

// Machine is a machine's service with what administrators see of it.
type Machine struct {
	vom.Machine
	Joined, NotAfter time.Time
	Address          string
}

const (
	joinTTL       = time.Hour
	maxJoinTTL    = 30 * 24 * time.Hour
	maxJoinUses   = 10000
	maxAddresses  = 16
	revokeMachine = "node/"
)

// CreateJoinToken makes a token with which machines may join: uses times (0:
// once for each service of one machine, twice) within ttl (0: an hour).
func (r *Records) CreateJoinToken(ctx context.Context, ttl time.Duration, uses int64) (id string, token Token, err error) {
	if ttl == 0 {
		ttl = joinTTL
	}
	if uses == 0 {
		uses = 2
	}
	if ttl < 0 || ttl > maxJoinTTL || uses < 0 || uses > maxJoinUses {
		return "", Token{}, xos.Errorf(xos.Invalid, "a join token serves at most %v and %d times", maxJoinTTL, maxJoinUses)
	}
	id = strings.ToLower(rand.Text()[:8])
	token = Token{rand.Text() + rand.Text()[:6], r.now().Add(ttl)}
	err = r.db.Update(ctx, func(t kv.Txn) error {
		return write(t, prefixJoin+id, joinRecord{hashSecret(token.Secret), uses, token.Expires})
	})
	return id, token, err
}

func hashSecret(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Join spends one use of a join token and gives what may be certified for a
// machine. from is the address it asks from.
func (r *Records) Join(ctx context.Context, id, secret string, claim vom.MachineClaim, from string) (vom.MachineGrant, error) {
	if err := goodName("node", string(claim.Node)); err != nil {
		return vom.MachineGrant{}, err
	}
	if claim.Service != vom.ServiceNode && claim.Service != vom.ServiceStorage {
		return vom.MachineGrant{}, xos.Errorf(xos.Invalid, "%.80q is no service that joins", string(claim.Service))
	}
	refused := xos.Errorf(xos.Permission, "the join token is wrong, spent or expired").WithHint("an administrator makes a new one: xos node token")
	return r.certify(ctx, claim, from, func(t kv.Txn, old machineRecord, known bool) error {
		if id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			return refused
		}
		j, ok, err := read[joinRecord](t, prefixJoin+id)
		if err != nil {
			return err
		}
		if !ok || j.Uses <= 0 || r.now().After(j.Expires) ||
			subtle.ConstantTimeCompare([]byte(j.Hash), []byte(hashSecret(secret))) != 1 {
			return refused
		}
		if known && old.Key != hex.EncodeToString(claim.Key[:]) {
			return xos.Errorf(xos.Exists, "another machine has joined as %q, service %q", claim.Node, claim.Service).
				WithHint("choose another name, or have it removed: xos node remove %s", claim.Node)
		}
		j.Uses--
		if j.Uses == 0 {
			return t.Delete([]byte(prefixJoin + id))
		}
		return write(t, prefixJoin+id, j)
	})
}

// RenewMachine gives what may be certified for a machine that showed a
// verified certificate on the key with the hash shown; it may change its key
// and addresses. A key that is not the one on record is another machine's, or
// of before a removal.
func (r *Records) RenewMachine(ctx context.Context, claim vom.MachineClaim, shown [32]byte, from string) (vom.MachineGrant, error) {
	return r.certify(ctx, claim, from, func(_ kv.Txn, old machineRecord, known bool) error {
		if !known {
			return xos.Errorf(xos.Permission, "no machine %q with service %q has joined", claim.Node, claim.Service)
		}
		if old.Key != hex.EncodeToString(shown[:]) {
			return xos.Errorf(xos.Permission, "another machine has joined as %q, service %q", claim.Node, claim.Service)
		}
		return nil
	})
}

// CertifyCore gives what may be certified for this core itself. It must be
// able to start: an address that a machine has is left out, not refused.
func (r *Records) CertifyCore(ctx context.Context, claim vom.MachineClaim) (vom.MachineGrant, error) {
	if claim.Service != vom.ServiceCore {
		return vom.MachineGrant{}, xos.Errorf(xos.Internal, "a core asks for service %q", claim.Service)
	}
	if err := goodName("node", string(claim.Node)); err != nil {
		return vom.MachineGrant{}, err
	}
	wanted := claim.Addresses
	err := r.db.View(ctx, func(t kv.Txn) error {
		claim.Addresses = nil
		for _, a := range wanted {
			err := addressesFree(t, vom.MachineClaim{Node: claim.Node, Addresses: []netip.Addr{a}})
			if xos.Is(err, xos.Exists) {
				r.cfg.Log.Warn("a machine has an address of this core", "address", a, "error", err)
				continue
			}
			if err != nil {
				return err
			}
			claim.Addresses = append(claim.Addresses, a)
		}
		return nil
	})
	if err != nil {
		return vom.MachineGrant{}, err
	}
	return r.certify(ctx, claim, "", func(kv.Txn, machineRecord, bool) error { return nil })
}

func (r *Records) certify(ctx context.Context, claim vom.MachineClaim, from string, allow func(kv.Txn, machineRecord, bool) error) (vom.MachineGrant, error) {
	if len(claim.Addresses) > maxAddresses {
		return vom.MachineGrant{}, xos.Errorf(xos.TooLarge, "%d addresses are too many: at most %d", len(claim.Addresses), maxAddresses)
	}
	var g vom.MachineGrant
	err := r.db.Update(ctx, func(t kv.Txn) error {
		key := keyMachine(claim.Node, claim.Service)
		m, known, err := read[machineRecord](t, key)
		if err != nil {
			return err
		}
		if err := allow(t, m, known); err != nil {
			return err
		}
		if claim.Service != vom.ServiceCore { // else nobody could lift the ban
			if err := r.notBanned(t, vom.Identity{Node: claim.Node, Key: claim.Fingerprint}); err != nil {
				return err
			}
		}
		if err := addressesFree(t, claim); err != nil {
			return err
		}
		last, _, err := read[revocationRecord](t, prefixRevoked+revokeMachine+string(claim.Node))
		if err != nil {
			return err
		}
		issued := later(r.now(), last.Before.Add(time.Nanosecond))
		g = vom.MachineGrant{
			Machine:   vom.Machine{Node: claim.Node, Service: claim.Service, Serial: newSerial()},
			Addresses: claim.Addresses, Issued: issued,
			NotBefore: issued.Add(-backdate).Truncate(time.Second),
			NotAfter:  issued.Add(r.cfg.MachineTTL).Truncate(time.Second),
		}
		if !known {
			m.Joined = r.now()
		}
		m.NotAfter, m.Addresses, m.From = g.NotAfter, claim.Addresses, from
		m.Key = hex.EncodeToString(claim.Key[:])
		m.LastIssued = later(m.LastIssued, issued)
		if err := note(t, g.Serial, issuedRecord{Machine: string(claim.Node) + "/" + string(claim.Service), Key: claim.Fingerprint, Issued: issued, NotAfter: g.NotAfter}); err != nil {
			return err
		}
		return write(t, key, m)
	})
	if err != nil {
		return vom.MachineGrant{}, err
	}
	return g, nil
}

// addressesFree refuses an address that a machine of another name has: whose
// host certificate holds it could stand in for that machine.
func addressesFree(t kv.Txn, claim vom.MachineClaim) error {
	return each(t, prefixMachine, func(rest string, m machineRecord) error {
		name, _, _ := strings.Cut(rest, "/")
		if name == string(claim.Node) {
			return nil
		}
		for _, a := range claim.Addresses {
			if !a.IsLoopback() && slices.Contains(m.Addresses, a) {
				return xos.Errorf(xos.Exists, "the address %v is that of machine %q", a, name).
					WithHint("if that is gone: xos node remove %s", name)
			}
		}
		return nil
	})
}

// ListMachines gives all machines, by name and service.
func (r *Records) ListMachines(ctx context.Context) (list []Machine, err error) {
	err = r.db.View(ctx, func(t kv.Txn) error {
		list = nil
		return each(t, prefixMachine, func(rest string, m machineRecord) error {
			name, service, _ := strings.Cut(rest, "/")
			list = append(list, Machine{vom.Machine{Node: xos.NodeID(name), Service: vom.Service(service)}, m.Joined, m.NotAfter, m.From})
			return nil
		})
	})
	return list, err
}

// RemoveMachine shuts a machine out, with all its services.
func (r *Records) RemoveMachine(ctx context.Context, name xos.NodeID, why, by string) error {
	why, err := goodReason(why)
	if err != nil {
		return err
	}
	defer r.heard.forget(name) // if it is still there it says more
	return r.change(ctx, func(t kv.Txn) error {
		before, found := r.now(), false
		// Its own certificates, which may be older than the configuration, and
		// those that users delegated to it.
		ttl := max(r.cfg.MachineTTL, MaxUserTTL)
		for _, s := range []vom.Service{vom.ServiceCore, vom.ServiceNode, vom.ServiceStorage} {
			m, ok, err := read[machineRecord](t, keyMachine(name, s))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if s == vom.ServiceCore {
				return xos.Errorf(xos.Permission, "%q is a core", name).WithHint("a core is taken out of service on its own machine")
			}
			found = true
			before = later(before, m.LastIssued)
			ttl = max(ttl, m.NotAfter.Sub(r.now()))
			if err := t.Delete([]byte(keyMachine(name, s))); err != nil {
				return err
			}
		}
		if !found {
			return xos.Errorf(xos.NotFound, "there is no machine %.80q", string(name)).WithHint("see: xos node list")
		}
		reason := "the machine was removed " + by
		if why != "" {
			reason += ": " + why
		}
		rev := vom.Revocation{Node: name, Before: before, Reason: reason}
		if err := r.revoke(t, revokeMachine+string(name), rev, ttl); err != nil {
			return err
		}
		return bump(t)
	})
}
