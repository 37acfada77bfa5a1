package vom

import (
	"slices"

	"github.com/xtreemos/xos"
)

// RoleAdmin is the one role that means something to XtreemOS itself: whoever
// has it in a VO administers that VO. Root on the core gives it.
const RoleAdmin xos.RoleName = "admin"

// Administers reports whether a verified identity administers its VO. One
// delegated to a machine does not.
func Administers(id Identity) bool {
	return id.Node == "" && slices.Contains(id.Roles, RoleAdmin)
}
