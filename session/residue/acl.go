package residue

import (
	"encoding/binary"
)

// mention is an id in an extended attribute, and as what.
type mention struct {
	id uint32
	as string
}

// decodeACL reads a POSIX access control list as its attribute holds it: a
// version and entries of tag, permissions and id, little-endian; see
// include/uapi/linux/posix_acl_xattr.h. Who has no permission in it is in it.
func decodeACL(data []byte) ([]mention, error) {
	const version, user, group = 2, 0x02, 0x08
	if len(data) == 0 {
		return nil, nil // it was taken away
	}
	if len(data) < 4 || binary.LittleEndian.Uint32(data) != version || (len(data)-4)%8 != 0 {
		return nil, textError("its access control list cannot be read")
	}
	var out []mention
	for e := data[4:]; len(e) > 0; e = e[8:] {
		id := binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e) {
		case user:
			out = append(out, mention{id, "ACL entry of a user"})
		case group:
			out = append(out, mention{id, "ACL entry of a group"})
		}
	}
	return out, nil
}

// decodeCapability reads a file's capabilities: those of version 3 are good in
// user namespaces whose root is the id at the end; see capabilities(7).
func decodeCapability(data []byte) ([]mention, error) {
	const version3, size3 = 0x03000000, 24
	if len(data) < 4 {
		return nil, textError("its capabilities cannot be read")
	}
	if binary.LittleEndian.Uint32(data)&0xff000000 != version3 {
		return nil, nil
	}
	if len(data) != size3 {
		return nil, textError("its capabilities cannot be read")
	}
	return []mention{{binary.LittleEndian.Uint32(data[20:]), "root of its capabilities"}}, nil
}
