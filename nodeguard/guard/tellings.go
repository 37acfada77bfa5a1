package guard

import (
	"errors"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// Labels that are no VO's number: bpf/lsm.h.
const (
	bpfSystem   = 0
	bpfStranger = 1<<32 - 1
)

// keep makes place to count what is told of a VO's refusals, and what is not.
func (n *network) keep(vo uint32) error {
	if err := n.objs.Tellings.Update(vo, bpf.VonetXosTelling{}, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return xos.Errorf(xos.Unavailable, "making a count of what is told of VO %d: %w", vo, err)
	}
	return nil
}

// tellings gives, by VO's number, what was told of refusals until now.
func (n *network) tellings() (map[uint32]bpf.VonetXosTelling, error) {
	list := map[uint32]bpf.VonetXosTelling{}
	var num uint32
	var t bpf.VonetXosTelling
	all := n.objs.Tellings.Iterate()
	for all.Next(&num, &t) {
		list[num] = t
	}
	if err := all.Err(); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "reading what was told of refusals: %w", err)
	}
	return list, nil
}

// lost gives, by VO's number, how many refusals were not told until now: the ring
// had no room, or the VO had too many at once.
func (n *network) lost() (map[uint32]uint64, error) {
	list, err := n.tellings()
	if err != nil {
		return nil, err
	}
	lost := map[uint32]uint64{}
	for num, t := range list {
		lost[num] = t.Lost
	}
	return lost, nil
}

// inLog is how many refusals of each VO, by its number, are in the log of decisions
// as lost. It is kept where what counts them is, so that a successor tells what was
// lost while nobody read.
type inLog struct{ m *ebpf.Map }

func openInLog(pinDir string, pinned bool) (inLog, error) {
	spec := &ebpf.MapSpec{Name: "lost_in_log", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: maxVOs + 2, Flags: unix.BPF_F_NO_PREALLOC}
	var opts ebpf.MapOptions
	if pinned {
		spec.Pinning, opts.PinPath = ebpf.PinByName, pinDir
	}
	m, err := ebpf.NewMapWithOptions(spec, opts)
	if err != nil {
		return inLog{}, xos.Errorf(xos.NotSupported, "making the map of what the log has: %w", err)
	}
	return inLog{m}, nil
}

func (l inLog) read() (map[uint32]uint64, error) {
	list := map[uint32]uint64{}
	var num uint32
	var n uint64
	all := l.m.Iterate()
	for all.Next(&num, &n) {
		list[num] = n
	}
	if err := all.Err(); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "reading what the log has: %w", err)
	}
	return list, nil
}

// note notes what is in the log now, and was not before.
func (l inLog) note(before, now map[uint32]uint64) error {
	for num, n := range now {
		if before[num] == n {
			continue
		}
		if err := l.m.Put(num, n); err != nil {
			return xos.Errorf(xos.Unavailable, "noting what the log has: %w", err)
		}
	}
	return nil
}

// programs are those of bpf/vonet.c, as their refusals are told.
var programs = map[bpf.VonetXosProgram]struct{ name, aim string }{
	bpf.VonetXosProgramXOS_SOCK_CREATE: {"sock_create", aimNetwork},
	bpf.VonetXosProgramXOS_CONNECT4:    {"connect4", aimNetwork},
	bpf.VonetXosProgramXOS_CONNECT6:    {"connect6", aimNetwork},
	bpf.VonetXosProgramXOS_SENDMSG4:    {"sendmsg4", aimNetwork},
	bpf.VonetXosProgramXOS_SENDMSG6:    {"sendmsg6", aimNetwork},
	bpf.VonetXosProgramXOS_DEVICE:      {"device", aimDevices},
}

const aimNetwork, aimDevices = "network", "devices"
