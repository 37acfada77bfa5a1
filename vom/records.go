package vom

import (
	"net/netip"
	"time"

	"github.com/xtreemos/xos"
)

// Proof is how a user without a certificate shows who she is: her password, or
// an enrolment token, which serves once. With either she may set a new password.
type Proof struct {
	Password, Token, NewPassword string
	// Key is the fingerprint of the key that shall be certified.
	Key string
}

// MachineClaim is what a machine that wants a certificate says of itself.
type MachineClaim struct {
	Node    xos.NodeID
	Service Service
	// Key is the SHA-256 of its public key (SubjectPublicKeyInfo): only the
	// machine that joined under a name, or one with a new token after its
	// removal, may have it.
	Key [32]byte
	// Fingerprint is the key's as bans name it, "SHA256:…"; "" for a key of a
	// kind that OpenSSH does not know.
	Fingerprint string
	// Addresses it wants in its certificate. No two machines have the same.
	Addresses []netip.Addr
}

// MachineGrant is what the records allow to certify.
type MachineGrant struct {
	Machine
	Addresses                   []netip.Addr
	Issued, NotBefore, NotAfter time.Time
}
