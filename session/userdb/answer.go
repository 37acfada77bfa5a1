package userdb

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/xtreemos/xos"
)

// The errors of the interface, and those of varlink itself.
const (
	noRecord      = "io.systemd.UserDatabase.NoRecordFound"
	conflicting   = "io.systemd.UserDatabase.ConflictingRecordFound"
	badService    = "io.systemd.UserDatabase.BadService"
	notAvailable  = "io.systemd.UserDatabase.ServiceNotAvailable"
	noEnumeration = "io.systemd.UserDatabase.EnumerationNotSupported"

	noInterface  = "org.varlink.service.InterfaceNotFound"
	noMethod     = "org.varlink.service.MethodNotFound"
	badParameter = "org.varlink.service.InvalidParameter"
	expectedMore = "org.varlink.service.ExpectedMore"
)

// failed is the only reply to a call that failed.
func failed(name string, parameters any) []reply {
	return []reply{{Error: name, Parameters: parameters}}
}

// question is what a call asks for; what it leaves open is nil.
type question struct {
	service     string
	user, group *string
	uid, gid    *uint32
}

// errParameter names the parameter that cannot be read.
type errParameter string

func (e errParameter) Error() string { return "cannot read parameter " + string(e) }

// questionOf reads the parameters, of which those named may be there. An unknown
// one must be refused, not left out: it may narrow what is asked for, and
// systemd asks again without what it can do itself.
func questionOf(c call, allowed ...string) (question, error) {
	var q question
	to := map[string]any{"service": &q.service, "userName": &q.user, "groupName": &q.group, "uid": &q.uid, "gid": &q.gid}
	// In order, so that of several the same is always named.
	for _, name := range slices.Sorted(maps.Keys(c.parameters)) {
		raw := c.parameters[name]
		if string(raw) == "null" {
			continue
		}
		if !slices.Contains(allowed, name) || json.Unmarshal(raw, to[name]) != nil {
			return q, errParameter(name)
		}
	}
	return q, nil
}

// answer gives the replies to a call of a process of uid, one at least.
func (s *Server) answer(uid uint32, c call) []reply {
	methods := map[string]struct {
		allowed []string
		answer  func(viewer, question) ([]any, error)
	}{
		"io.systemd.UserDatabase.GetUserRecord":  {[]string{"service", "uid", "userName"}, viewer.userRecord},
		"io.systemd.UserDatabase.GetGroupRecord": {[]string{"service", "gid", "groupName"}, viewer.groupRecord},
		"io.systemd.UserDatabase.GetMemberships": {[]string{"service", "userName", "groupName"}, viewer.memberships},
	}
	m, ok := methods[c.method]
	if !ok {
		return s.describe(c)
	}
	q, err := questionOf(c, m.allowed...)
	var bad errParameter
	switch {
	case errors.As(err, &bad):
		return failed(badParameter, map[string]string{"parameter": string(bad)})
	case q.service != Service:
		return failed(badService, nil)
	case q.user == nil && q.group == nil && q.uid == nil && q.gid == nil:
		return failed(noEnumeration, nil)
	}
	found, err := m.answer(viewer{uid: uid, snapshots: s.cfg.Snapshots}, q)
	switch {
	case xos.KindOf(err) == xos.NotFound, err == nil && len(found) == 0:
		return failed(noRecord, nil)
	case xos.KindOf(err) == xos.Conflict:
		return failed(conflicting, nil)
	case err != nil:
		s.log.Error("a lookup failed", "method", c.method, "uid", uid, "error", err)
		return failed(notAvailable, nil)
	case len(found) > 1 && !c.more:
		return failed(expectedMore, nil)
	}
	var replies []reply
	for _, f := range found {
		replies = append(replies, reply{Parameters: f})
	}
	return replies
}
