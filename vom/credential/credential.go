// Package credential is how grid identity is written into X.509 and OpenSSH
// certificates, and read and verified again.
//
// Both kinds carry the same attributes under names of their own:
//
//	                        X.509 extension                OpenSSH extension
//	user                    GlobalUserID                   user-id@xtreemos
//	virtual organisation    GlobalPrimaryVOName            vo@xtreemos
//	groups                  GlobalSecondaryGroupNames      groups@xtreemos
//	roles                   GlobalPrimaryRoleName          roles@xtreemos
//	home volume             HomeVolume                     home@xtreemos
//	time of issue           Issued                         issued@xtreemos
//	delegated to a node     DelegatedTo, DelegatedFrom     delegated-to@xtreemos, delegated-from@xtreemos
//	machine's service       MachineService                 —
//
// X.509 values are DER UTF8Strings; lists are separated by commas, which no
// name contains, and sorted. An X.509 certificate speaks either for a user
// (GlobalUserID) or for a machine (MachineService), never for both. An OpenSSH
// certificate has one principal, the login name "alice@physics". One that is
// delegated to a node is a session's, by which she goes on from that node to
// others; it is good from that node's addresses only.
//
// What is read is not yet believed: the From functions only parse, a Verifier
// also checks chain, validity and revocation. Decoders refuse what the
// encoders would not write.
package credential

import (
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// Bounds of what a certificate may hold, so that a decoder's work and the
// groups of a login (the kernel takes 65536) are bounded too.
const (
	MaxGroups = 64
	MaxRoles  = 64
	maxValue  = 4096  // bytes of one extension
	maxSSH    = 16384 // bytes of one OpenSSH certificate
	maxVolume = 128
)

// Backdate is the most by which NotBefore precedes Issued.
const Backdate = time.Minute

// check holds for every identity that is written or read.
func check(id vom.Identity) error {
	a, err := xos.ParseAccount(id.Account.String())
	if err != nil {
		return err
	}
	if a != id.Account || xos.ReservedName(string(a.VO)) {
		return xos.Errorf(xos.Invalid, "%q is no grid account", id.Account)
	}
	if err := checkNames("group", id.Groups, MaxGroups); err != nil {
		return err
	}
	if err := checkNames("role", id.Roles, MaxRoles); err != nil {
		return err
	}
	if id.Home != "" && !validVolume(string(id.Home)) {
		return xos.Errorf(xos.Invalid, "%.80q is no volume name", id.Home)
	}
	if id.Node != "" && !xos.ValidName(string(id.Node)) {
		return xos.Errorf(xos.Invalid, "%.80q is no node name", id.Node)
	}
	if id.Source != "" && (id.Node == "" || !validSerial(id.Source)) {
		return xos.Errorf(xos.Invalid, "%.80q is no source of a delegation", id.Source)
	}
	if id.Issued.IsZero() {
		return xos.Errorf(xos.Invalid, "the certificate does not say when it was issued")
	}
	return nil
}

func checkNames[S ~string](what string, names []S, most int) error {
	if len(names) > most {
		return xos.Errorf(xos.TooLarge, "%d %ss are more than a certificate holds (%d)", len(names), what, most)
	}
	for i, n := range names {
		if !xos.ValidName(string(n)) {
			return xos.Errorf(xos.Invalid, "%.80q is no %s name", string(n), what)
		}
		if i > 0 && names[i-1] >= n {
			return xos.Errorf(xos.Invalid, "%ss are not sorted", what)
		}
	}
	return nil
}

// validVolume: parts of names joined by '-'; longer than one name.
func validVolume(s string) bool {
	if len(s) > maxVolume {
		return false
	}
	for _, part := range strings.Split(s, "-") {
		for i := 0; i < len(part); i++ {
			c := part[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.') {
				return false
			}
		}
	}
	return s != "" && s[0] >= 'a' && s[0] <= 'z'
}

// validSerial: a positive decimal number of at most 20 octets (RFC 5280).
func validSerial(s string) bool {
	if len(s) == 0 || len(s) > 49 || s[0] == '0' {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

func join[S ~string](names []S) string {
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = string(n)
	}
	return strings.Join(parts, ",")
}

func split[S ~string](s string) []S {
	if s == "" {
		return nil
	}
	var names []S
	for part := range strings.SplitSeq(s, ",") {
		names = append(names, S(part))
	}
	return names
}

const issuedLayout = "2006-01-02T15:04:05.000000000Z"

func formatIssued(t time.Time) string { return t.UTC().Format(issuedLayout) }

func parseIssued(s string) (time.Time, error) {
	t, err := time.Parse(issuedLayout, s)
	if err != nil || formatIssued(t) != s {
		return time.Time{}, xos.Errorf(xos.Invalid, "%.80q is no time of issue", s)
	}
	return t, nil
}

// checkIssued keeps the time of issue and the validity together: else a
// certificate could claim an issue after every revocation.
func checkIssued(issued, notBefore time.Time) error {
	if d := issued.Sub(notBefore); d < -time.Second || d > Backdate+time.Second {
		return xos.Errorf(xos.Invalid, "time of issue and begin of validity lie %v apart", d)
	}
	return nil
}

// Clean sorts and compacts the groups and roles of attributes, as certificates
// want them.
func Clean(a xos.Attributes) xos.Attributes {
	a.Groups = slices.Compact(slices.Sorted(slices.Values(a.Groups)))
	a.Roles = slices.Compact(slices.Sorted(slices.Values(a.Roles)))
	return a
}
