// Package session is the contract of a machine's session service: login
// sessions, the account map (grid account ↔ local uid), the credentials of
// each session, and the gate that all grid requests of a machine's users pass.
// session/service implements it inside xos-node; session/wire is the protocol
// that the NSS and PAM modules speak to it, session/shim their C side.
package session

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Ids of the account map: uids and gids of grid accounts and groups. The range
// is unused in systemd's table of ids and clear of the subordinate ids that
// useradd gives to local users.
const (
	FirstID uint32 = 1879048192
	LastID  uint32 = 2147483646
)

// Mapping is a grid account's place in the local system. GID equals UID.
type Mapping struct {
	Account xos.Account
	UID     uint32
	// Home is the absolute path of the home directory, Shell the login shell.
	Home, Shell string
	// Groups are the VO groups with their local gids; the private group is
	// not among them.
	Groups []Group
}

// Group is a VO group ("physics", "physics:higgs") and its local gid.
type Group struct {
	Name string
	GID  uint32
}

// IDs are the uids by which a machine knows what a person runs: her own, and
// those from First to Last, which containers of hers may have; First is 0 where
// she has none.
type IDs struct{ UID, First, Last uint32 }

// Has reports whether a uid is one of them.
func (i IDs) Has(uid uint32) bool {
	return uid == i.UID || i.First != 0 && uid >= i.First && uid <= i.Last
}

// Session is one open login.
type Session struct {
	ID       xos.SessionID
	Identity vom.Identity
	Mapping  Mapping
	// LoginPID is the process that holds the login (sshd's).
	LoginPID int
	// From is the peer's address, TTY the terminal; both may be empty.
	From, TTY string
	Opened    time.Time
}

// Credential lets this machine act for a grid user: a delegated certificate
// with its key, narrower and never longer-lived than what it came from.
type Credential struct {
	Certificate tls.Certificate
	Identity    vom.Identity
	// Until is when no renewal of it will be longer-lived; zero: not known.
	Until time.Time
}

// Sessions is what the other services of a machine ask of its session service.
type Sessions interface {
	// Of gives the session that a local uid's request belongs to, the newest
	// where there are several; xos.Permission if the uid is no grid user's or
	// has no session here.
	Of(ctx context.Context, uid uint32) (Session, error)
	// Credential gives the account's delegated credential on this machine,
	// renewed if need be; xos.Unavailable if the core cannot be reached and
	// none is held that is still valid.
	Credential(ctx context.Context, a xos.Account) (Credential, error)
	// Admit prepares this machine for a job of a grid user: a durable uid, the
	// groups, the mounted home. The identity must be verified; grant is the
	// credential she gave this machine. Call release when the job is gone.
	Admit(ctx context.Context, who vom.Identity, grant Credential) (m Mapping, release func(), err error)
	// Revoked tells what must become of an account's jobs when its access ended,
	// or came back. It must be drained. The same may be told twice.
	Revoked() <-chan Sentence
}

// Sentence is what an account's jobs on this machine must do.
type Sentence struct {
	Account xos.Account
	Do      Doing
}

// Doing is what jobs must do.
type Doing string

const (
	End    Doing = "end"    // killed
	Freeze Doing = "freeze" // stopped, where they stand
	Thaw   Doing = "thaw"   // go on, those that Freeze had stopped
)

// Mounter mounts home volumes, in a unit of its own for each, so that a mount
// outlives xos-node and is shared by the sessions and jobs of one account.
type Mounter interface {
	// Mount makes the volume present at path for the account and returns when
	// it is usable. It is idempotent. The session service stores the credential
	// at the path xos-node gives to mount.xosfs, before or meanwhile: Mount waits
	// for it. Who ends the waiting calls Unmount.
	Mount(ctx context.Context, volume xos.VolumeID, m Mapping) error
	// Unmount removes it; a busy mount is detached lazily.
	Unmount(ctx context.Context, volume xos.VolumeID, m Mapping) error
}
