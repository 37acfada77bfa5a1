// Package wire is the Go side of the protocol between XtreemOS's modules in
// other programs' processes (libnss_xos.so.2 for the name service switch, NSS;
// pam_xos.so for pluggable authentication, PAM; xos-principals for sshd) and
// the session service of xos-node, and of the snapshot files that answer most
// lookups without it.
//
// The protocol and the file format are defined in session/shim/xos_wire.h.
// Serve is the server; whoever implements Handler decides.
package wire

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/xtreemos/xos"
)

// SocketPath is where the modules look for the server, and SnapshotDir where
// they look for snapshots.
const (
	SocketPath  = "/run/xos/shim.sock"
	SnapshotDir = "/run/xos/nss"
)

// Peer is who asks, by the kernel's word.
type Peer struct {
	PID      int
	UID, GID uint32
	// PIDFD refers to the process of PID and cannot come to mean another one;
	// -1 if the process is gone already. It belongs to the server, which
	// closes it when the Handler's method has returned: dup it to keep it.
	PIDFD int
}

// Passwd is a user as getpwnam gives it. UID and GID must be in the range of
// grid ids, or Serve answers with an internal error.
type Passwd struct {
	Name              string
	UID, GID          uint32
	Gecos, Dir, Shell string
}

// Group is a group as getgrnam gives it.
type Group struct {
	Name    string
	GID     uint32
	Members []string
}

// PrincipalsRequest is sshd's question which principal a certificate must name
// to log in as Account. It is asked twice for each login and before the peer
// has proved that it holds the key.
type PrincipalsRequest struct {
	Account xos.Account
	// KeyType is "ssh-ed25519-cert-v01@openssh.com" or the like, Key the
	// certificate in base64.
	KeyType, Key string
}

// PAMRequest is what PAM knows of a login. All but the account may be empty,
// and Service, RemoteHost and TTY are the host program's word.
type PAMRequest struct {
	Account                  xos.Account
	Service, RemoteHost, TTY string
}

// Secret is a password. It is never printed, whatever prints it.
type Secret []byte

// Format implements fmt.Formatter, and LogValue slog.LogValuer.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "(secret)") }
func (Secret) LogValue() slog.Value       { return slog.StringValue("(secret)") }

// PAMAuthRequest asks whether the peer's process speaks for the account. The
// password is only there until the Handler's method has returned.
type PAMAuthRequest struct {
	PAMRequest
	Password Secret
}

// PAMOpenRequest opens a login session for the peer's process.
type PAMOpenRequest struct {
	PAMRequest
	// AuthInfo is SSH_AUTH_INFO_0: a line for each way in which the user has
	// proved herself, "publickey TYPE BASE64". Empty when this is no ssh
	// login.
	AuthInfo string
}

// PAMOpenReply is an opened session.
type PAMOpenReply struct {
	Session xos.SessionID
	// Env is put into the session's environment, NAME=value each.
	Env []string
	// Message is shown to the user; may be empty.
	Message string
	// Namespace is a mount namespace that the login process will enter; nil
	// for none. Serve closes it.
	Namespace *os.File
	// Refused, with an error, is called when the client has shown the refusal to
	// the user, or has had a few seconds for it: it may end the client then. It is
	// called whatever becomes of the connection.
	Refused func()
}

// Handler answers the requests. An error's kind becomes the reply's status,
// and its message is shown to the user, except for Internal errors, whose
// text stays in the log. The context ends when the client stops waiting.
// Methods are called concurrently.
//
// Names have been checked against the grammar of login names before; requests
// with others have been answered with NotFound. Groups are asked by the names
// "physics", "physics:higgs" and "alice@physics", the last being alice's
// private group.
type Handler interface {
	// GetPwNam and GetPwUID look a user up. The modules ask for root only,
	// and only what no snapshot has: all others are answered by snapshots.
	// But anyone may connect, so every method looks at the peer.
	GetPwNam(ctx context.Context, p Peer, a xos.Account) (Passwd, error)
	GetPwUID(ctx context.Context, p Peer, uid uint32) (Passwd, error)
	GetGrNam(ctx context.Context, p Peer, name string) (Group, error)
	GetGrGID(ctx context.Context, p Peer, gid uint32) (Group, error)
	// InitGroups gives all groups of the user but her private one.
	InitGroups(ctx context.Context, p Peer, a xos.Account) ([]uint32, error)
	// SubIDs gives the range of ids that a container of the account may use
	// beside hers, and SubIDOwner the uid of whom such an id is. Both are asked
	// by root, for anybody, and by users.
	SubIDs(ctx context.Context, p Peer, a xos.Account) (first, count uint32, err error)
	SubIDOwner(ctx context.Context, p Peer, id uint32) (uid uint32, err error)
	// Principals gives the one principal to be accepted, or an error.
	Principals(ctx context.Context, p Peer, r PrincipalsRequest) (string, error)

	// The PAM methods are called for root's processes only.

	// PAMAuth checks a password. What it grants is for a session of this
	// account, opened by the peer's process or by the one that forked it to
	// ask. The reason of a refusal must not tell which users exist.
	PAMAuth(ctx context.Context, p Peer, r PAMAuthRequest) error
	// PAMAccount refuses what can be refused by name. The message, which may
	// be empty, is shown to the user.
	PAMAccount(ctx context.Context, p Peer, r PAMRequest) (message string, err error)
	// PAMOpen opens a session. An error does not end an ssh connection, so
	// the implementation has to end the peer's process itself. If the reply
	// could not be delivered, PAMClose follows.
	PAMOpen(ctx context.Context, p Peer, r PAMOpenRequest) (PAMOpenReply, error)
	// PAMClose ends a session; closing an unknown one is no error. The peer is
	// the process that opened it, or a relative of that. The login process may
	// be killed without calling this: watch the PIDFD of PAMOpen too.
	PAMClose(ctx context.Context, p Peer, id xos.SessionID) error
}
