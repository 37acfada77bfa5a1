package xvoms

import (
	"strings"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// concerning finds what could refuse a certificate without looking at every
// revocation and every ban: there may be thousands, and a hundred thousand
// certificates.
type concerning struct {
	serial map[string][]vom.Revocation
	user   map[xos.UserID][]vom.Revocation
	node   map[xos.NodeID][]vom.Revocation
	rest   []vom.Revocation // those that name a VO only, or nothing
	bans   map[vom.BanKind]map[string]vom.Ban
}

func newConcerning(b vom.Bundle) *concerning {
	c := &concerning{serial: map[string][]vom.Revocation{}, user: map[xos.UserID][]vom.Revocation{},
		node: map[xos.NodeID][]vom.Revocation{}, bans: map[vom.BanKind]map[string]vom.Ban{}}
	for _, r := range b.Revocations {
		switch {
		case r.Serial != "":
			c.serial[r.Serial] = append(c.serial[r.Serial], r)
		case r.User != "":
			c.user[r.User] = append(c.user[r.User], r)
		case r.Node != "":
			c.node[r.Node] = append(c.node[r.Node], r)
		default:
			c.rest = append(c.rest, r)
		}
	}
	for _, ban := range b.Bans {
		if c.bans[ban.Kind] == nil {
			c.bans[ban.Kind] = map[string]vom.Ban{}
		}
		c.bans[ban.Kind][ban.Subject] = ban
	}
	return c
}

// about gives those that could refuse an issue, and perhaps others: the
// verifier's own comparison decides.
func (c *concerning) about(serial string, i issuedRecord) (b vom.Bundle) {
	user, _, _ := strings.Cut(i.Account, "@")
	node := i.Node
	if name, _, machine := strings.Cut(i.Machine, "/"); machine {
		node = xos.NodeID(name)
	}
	b.Revocations = append(b.Revocations, c.rest...)
	for _, more := range [][]vom.Revocation{c.serial[serial], c.serial[i.Source], c.user[xos.UserID(user)], c.node[node]} {
		b.Revocations = append(b.Revocations, more...)
	}
	for _, s := range []struct {
		kind    vom.BanKind
		subject string
	}{{vom.BanUser, user}, {vom.BanAccount, i.Account}, {vom.BanNode, string(node)}, {vom.BanKey, i.Key}, {vom.BanCertificate, serial}, {vom.BanCertificate, i.Source}} {
		if ban, ok := c.bans[s.kind][s.subject]; ok {
			b.Bans = append(b.Bans, ban)
		}
	}
	return b
}
