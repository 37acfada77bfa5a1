package service

import (
	"strconv"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/wire"
)

// visitor is who wants to log in, as far as this machine knows.
type visitor struct {
	peer wire.Peer
	host string // she comes from, by the word of the host program; "" if from here
	sshd bool   // sshd asks, before she has proven anything, and says no host
	// known is of one who is the account that she logs in as, or at least has
	// shown its certificate, and that this grid made it.
	known bool
}

// origin is whose a refusal is: the account's, if she is known; else the remote
// host's, or the local user's who started the host program. The account's name
// alone is anybody's to say. A certificate is not: sshd shows one before it is
// proven who has its key; but only she and the machines that she came to have it, and
// what they use up by it is her lines alone.
func (v visitor) origin(a xos.Account) audit.Origin {
	if v.known {
		return audit.Origin{Name: a.String(), Known: true}
	}
	if host := v.from(); host != "" {
		return audit.Host(host)
	}
	if v.sshd {
		return audit.Origin{Name: "ssh"}
	}
	uid, err := process.RealUser(v.peer.PID)
	if err != nil {
		return audit.Origin{Name: "here"}
	}
	return audit.Origin{Name: "uid " + strconv.FormatUint(uint64(uid), 10), Known: true}
}

// from is the remote host; "" where there is none, or none is known.
func (v visitor) from() string {
	if !v.sshd {
		return v.host
	}
	parent, err := process.Parent(v.peer.PID) // that has the connection
	if err != nil {
		return ""
	}
	at, err := parent.Remote()
	if err != nil {
		return ""
	}
	return at.String()
}
