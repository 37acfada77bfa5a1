// Package denial reads what the BPF programs tell of their refusals and writes
// it into a log of decisions: each one that is new at once, and how often it
// was repeated; never more lines than a bound, however many refusals there are,
// and none of one VO's less because of another's.
package denial

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"unsafe"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// Denial is one refusal, as the kernel told it.
type Denial struct {
	Hook                uint32 // enum xos_hook, or enum xos_program
	Why                 uint32 // of a program: enum xos_count
	VO, ObjectVO        uint32 // numbers of labels
	UID, PID            uint32
	ObjectUID, Device   uint32 // the inode's device, or the device that was asked for
	Object              uint64 // pid, inode, IPC id or serial of a key; kind of device and access
	Endpoint            Endpoint
	Cgroup              uint64 // id of the process's, below its VO's; 0 if not known
	Executable          File   // the zero File if not known
	Command             string // the process's name, as it likes to be called
	NanosecondsFromBoot uint64
}

// Endpoint is an object in the network, by Linux's numbers.
type Endpoint struct {
	Family, Protocol, Type uint16
	At                     netip.AddrPort // not valid of a socket that was to be made
}

// File is one by number, since a name can be made up.
type File struct {
	Device uint32 // major number, and below that 20 bits of the minor one
	Inode  uint64
}

// Decode reads an entry of the ring buffer. It may have been written by
// programs of another version, whose layout is not known: xos.Invalid.
func Decode(b []byte) (Denial, error) {
	var raw bpf.VonetXosDenial
	if len(b) != int(unsafe.Sizeof(raw)) {
		return Denial{}, xos.Errorf(xos.Invalid, "a denial has %d bytes, not %d", unsafe.Sizeof(raw), len(b))
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &raw); err != nil {
		return Denial{}, xos.Errorf(xos.Invalid, "reading a denial: %w", err)
	}
	if raw.Hook == 0 || raw.Hook >= uint32(bpf.LsmXosHookXOS_HOOKS) && !isProgram(raw.Hook) {
		return Denial{}, xos.Errorf(xos.Invalid, "a denial by hook %d, which there is not", raw.Hook)
	}
	comm := make([]byte, len(raw.Comm))
	for i, c := range raw.Comm {
		comm[i] = byte(c)
	}
	comm, _, _ = bytes.Cut(comm, []byte{0})
	return Denial{Hook: raw.Hook, Why: raw.Why, VO: raw.Vo, ObjectVO: raw.ObjectVo, UID: raw.Uid, PID: raw.Pid,
		ObjectUID: raw.Object.Uid, Device: raw.Object.Dev, Object: raw.Object.Id, Endpoint: endpoint(raw),
		Cgroup: raw.Cgroup, Executable: File{raw.ExeDev, raw.ExeInode},
		Command: string(comm), NanosecondsFromBoot: raw.When}, nil
}

// isProgram tells the programs of the network and of devices from the hooks.
func isProgram(hook uint32) bool {
	return hook >= uint32(bpf.VonetXosProgramXOS_SOCK_CREATE) && hook < uint32(bpf.VonetXosProgramXOS_PROGRAMS)
}

// Linux's numbers of address families.
const (
	inet    = 2
	inet6   = 10
	netlink = 16
)

func endpoint(raw bpf.VonetXosDenial) Endpoint {
	e := Endpoint{Family: raw.Endpoint.Family, Protocol: raw.Endpoint.Protocol, Type: raw.Endpoint.Type}
	switch bpf.VonetXosProgram(raw.Hook) {
	case bpf.VonetXosProgram(bpf.LsmXosHookXOS_SOCKET_CREATE):
		return Endpoint{Family: uint16(raw.Object.Id), Protocol: uint16(raw.Object.Uid), Type: uint16(raw.Object.Dev)}
	case bpf.VonetXosProgramXOS_CONNECT4, bpf.VonetXosProgramXOS_CONNECT6, bpf.VonetXosProgramXOS_SENDMSG4, bpf.VonetXosProgramXOS_SENDMSG6:
	default:
		return e
	}
	var wire [16]byte // in the order of the network, as they were in memory
	for i, word := range raw.Endpoint.Address {
		binary.NativeEndian.PutUint32(wire[4*i:], word)
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], raw.Endpoint.Port)
	at := netip.AddrFrom16(wire)
	if e.Family == inet {
		at = netip.AddrFrom4([4]byte(wire[:4]))
	}
	e.At = netip.AddrPortFrom(at, binary.BigEndian.Uint16(port[:]))
	return e
}
