// Package denial reads what the LSM programs tell of their refusals and writes
// it into a log of decisions: each one that is new at once, and how often it
// was repeated; never more lines than a bound, however many refusals there are.
package denial

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// Denial is one refusal, as the kernel told it.
type Denial struct {
	Hook                uint32 // enum xos_hook
	VO, ObjectVO        uint32 // numbers of labels
	UID, PID            uint32
	ObjectUID, Device   uint32
	Object              uint64 // pid, inode, IPC id or serial of a key
	Cgroup              uint64 // id of the process's, below its VO's
	Executable          File
	Command             string // the process's name, as it likes to be called
	NanosecondsFromBoot uint64
}

// File is one by number, since a name can be made up.
type File struct {
	Device uint32 // major number, and below that 20 bits of the minor one
	Inode  uint64
}

// Decode reads an entry of the ring buffer. It may have been written by
// programs of another version, whose layout is not known: xos.Invalid.
func Decode(b []byte) (Denial, error) {
	var raw bpf.LsmXosDenial
	if len(b) != int(unsafe.Sizeof(raw)) {
		return Denial{}, xos.Errorf(xos.Invalid, "a denial has %d bytes, not %d", unsafe.Sizeof(raw), len(b))
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &raw); err != nil {
		return Denial{}, xos.Errorf(xos.Invalid, "reading a denial: %w", err)
	}
	if raw.Hook == 0 || raw.Hook >= uint32(bpf.LsmXosHookXOS_HOOKS) {
		return Denial{}, xos.Errorf(xos.Invalid, "a denial by hook %d, which there is not", raw.Hook)
	}
	comm := make([]byte, len(raw.Comm))
	for i, c := range raw.Comm {
		comm[i] = byte(c)
	}
	comm, _, _ = bytes.Cut(comm, []byte{0})
	return Denial{Hook: raw.Hook, VO: raw.Vo, ObjectVO: raw.ObjectVo, UID: raw.Uid, PID: raw.Pid,
		ObjectUID: raw.Object.Uid, Device: raw.Object.Dev, Object: raw.Object.Id,
		Cgroup: raw.Cgroup, Executable: File{raw.ExeDev, raw.ExeInode},
		Command: string(comm), NanosecondsFromBoot: raw.When}, nil
}
