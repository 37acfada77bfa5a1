package userdb

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/xtreemos/xos/session/wire"
)

// recordReply is the answer with one record. None has a part that only some may
// see, so none is ever incomplete.
type recordReply struct {
	Record     any  `json:"record"`
	Incomplete bool `json:"incomplete"`
}

// userRecord is a user as systemd describes one: what getpwnam says of her.
// There is no section with secrets, for a machine holds none of hers.
type userRecord struct {
	UserName      string `json:"userName"`
	RealName      string `json:"realName,omitempty"`
	UID           uint32 `json:"uid"`
	GID           uint32 `json:"gid"`
	HomeDirectory string `json:"homeDirectory"`
	Shell         string `json:"shell"`
	Disposition   string `json:"disposition"`
	Service       string `json:"service"`
}

// groupRecord is a group as systemd describes one.
type groupRecord struct {
	GroupName   string   `json:"groupName"`
	GID         uint32   `json:"gid"`
	Members     []string `json:"members,omitempty"`
	Disposition string   `json:"disposition"`
	Service     string   `json:"service"`
}

type membership struct {
	UserName  string `json:"userName"`
	GroupName string `json:"groupName"`
}

// regular is the disposition of people who log in, and of their groups.
// "dynamic" is for users that exist as long as a service runs.
const regular = "regular"

func userOf(u wire.SnapshotUser) userRecord {
	return userRecord{UserName: u.Name, RealName: realName(u.Gecos), UID: u.UID, GID: u.GID,
		HomeDirectory: u.Dir, Shell: u.Shell, Disposition: regular, Service: Service}
}

// groupOf describes a VO's group, or a user's own.
func groupOf(r wire.Record) groupRecord {
	g := groupRecord{GroupName: r.Name(), GID: r.ID(), Disposition: regular, Service: Service}
	if r.Group != nil {
		g.Members = r.Group.Members
	}
	return g
}

// realName is the first field of a GECOS, or nothing where systemd would refuse
// the whole record for it.
func realName(gecos string) string {
	name, _, _ := strings.Cut(gecos, ",")
	name = strings.TrimSpace(name)
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || unicode.IsControl(r) }) {
		return ""
	}
	return name
}
