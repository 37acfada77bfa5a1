// Package xos holds the nouns that every part of XtreemOS shares: names and
// identifiers of the grid, the attributes of a virtual organisation (VO)
// member, and the one closed set of error kinds.
//
// It imports nothing of the project, so that anything may import it.
package xos

import (
	"fmt"
	"strings"
)

// Distinct types for distinct strings, so that the compiler finds a swap.
type (
	// UserID is a grid user's global name, unique in the grid: "alice".
	UserID string
	// VOName names a virtual organisation: "physics".
	VOName string
	// GroupName names a group inside a VO: "higgs".
	GroupName string
	// RoleName names a role inside a VO: "analyst".
	RoleName string
	// NodeID names a machine of the grid, as its certificate does: "node1".
	NodeID string
	// VolumeID names a file system volume: "home-physics-alice".
	VolumeID string
	// JobID names a job, with its home site first: "core-7f3a09c2".
	JobID string
	// SessionID names a login session of one node.
	SessionID string
)

// MaxName is the longest user, VO, group, role or node name, in bytes. A whole
// login name, "user@vo", therefore has at most 2*MaxName+1 bytes.
const MaxName = 32

// ValidName reports whether s may name a user, VO, group, role, node or
// volume part: a lower-case ASCII letter, then letters, digits, '_', '-' or
// '.', at most MaxName bytes, not ending in '.' or '-'. Everything that could
// be mistaken in a line format, a path or a shell is thereby shut out.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > MaxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return s[len(s)-1] != '.' && s[len(s)-1] != '-'
}

// Account is a grid user in one VO: what a local uid stands for.
type Account struct {
	User UserID
	VO   VOName
}

// String gives the login name, "alice@physics".
func (a Account) String() string { return string(a.User) + "@" + string(a.VO) }

// ParseAccount reads a login name "user@vo". The user names root, and those
// that a machine gives to itself, are refused: no grid identity may ever look
// like one.
func ParseAccount(s string) (Account, error) {
	user, vo, ok := strings.Cut(s, "@")
	if !ok || !ValidName(user) || !ValidName(vo) {
		return Account{}, Errorf(Invalid, "%.80q is no login name: want USER@VO, each a lower-case letter and at most %d of a-z 0-9 _ - .", s, MaxName)
	}
	if reserved[user] {
		return Account{}, Errorf(Invalid, "%q is reserved for the local machine", user)
	}
	return Account{UserID(user), VOName(vo)}, nil
}

// reserved are the machine's own, and names of groups that machines give rights
// to by name, whether they have such a group or not yet: sudoers, polkit and the
// daemons of container and machine engines.
var reserved = map[string]bool{
	"root": true, "nobody": true, "daemon": true, "bin": true, "sys": true, "xos": true,
	"sudo": true, "wheel": true, "admin": true, "adm": true, "shadow": true, "disk": true, "kmem": true,
	"docker": true, "lxd": true, "incus": true, "incus-admin": true, "libvirt": true, "kvm": true, "netdev": true,
}

// ReservedName reports whether a name belongs to the local machine and may
// name neither a grid user nor a VO.
func ReservedName(s string) bool { return reserved[s] }

// Attributes is what a VO says of one member: the content of her
// certificates. Groups and Roles are sorted.
type Attributes struct {
	Account
	Groups []GroupName
	Roles  []RoleName
	// Home is the volume mounted as her home directory; "" for none.
	Home VolumeID
}

// GroupNames gives the Unix group names of the attributes, the VO's own first:
// "physics", "physics:higgs".
func (a Attributes) GroupNames() []string {
	names := []string{string(a.VO)}
	for _, g := range a.Groups {
		names = append(names, fmt.Sprintf("%s:%s", a.VO, g))
	}
	return names
}
