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
	// proven is of one who is the account that she logs in as.
	proven bool
}

// origin is whose a refusal is: the account's, if it is proven to be hers; else the
// remote host's, or the local user's who started the host program. The account's
// name alone is anybody's to say, and so is a certificate before it is known who
// has its key.
func (v visitor) origin(a xos.Account) audit.Origin {
	if v.proven {
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
