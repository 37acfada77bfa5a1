package guard

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
)

// socketLists are the files of /proc/net that tell of each socket whose it is, or
// whom it speaks to. A kernel without a protocol has not all of them.
var socketLists = []string{"tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6",
	"unix", "netlink", "packet", "sctp/assocs", "sctp/eps", "sctp/remaddr"}

// ownNetwork is XOS_OWN_NETWORK in bpf/lsm.h.
const ownNetwork = 1 << 63

// fillLists has the LSM programs know this network namespace's lists of sockets by
// their numbers, which are the same below each process and in each mount of /proc.
// It is done again from time to time: a module that is loaded later brings its own.
func fillLists(lists *ebpf.Map) error {
	put := func(key uint64) error {
		if err := lists.Put(key, uint8(1)); err != nil {
			return xos.Errorf(xos.Internal, "noting the machine's lists of sockets: %w", err)
		}
		return nil
	}
	number := func(path string) (uint64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		return info.Sys().(*syscall.Stat_t).Ino, nil
	}
	namespace, err := number("/proc/self/ns/net")
	if err != nil {
		return xos.Errorf(xos.Internal, "looking for this machine's network namespace: %w", err)
	}
	if err := put(ownNetwork | namespace); err != nil {
		return err
	}
	found := false
	for _, name := range socketLists {
		list, err := number("/proc/self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = put(list)
		}
		if err != nil {
			return xos.Errorf(xos.Internal, "looking for the machine's lists of sockets: %w", err)
		}
		found = true
	}
	if !found {
		return xos.Errorf(xos.NotSupported, "/proc/net has none of the lists of sockets")
	}
	return nil
}
