package guard

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// network is the programs of bpf/vonet.c, attached to a cgroup.
type network struct {
	objs   bpf.VonetObjects
	links  []link.Link
	pinned bool // maps and links outlive this process
	// anew: of a predecessor's maps some could not be taken over.
	anew  bool
	inLog inLog
	ask   *ebpf.Program
	// devices says why they are everybody's here.
	devices error
}

// networkMaps are what a successor takes over.
var networkMaps = []string{bpf.VonetMapVoOfUid, bpf.VonetMapVoOfSocket, bpf.VonetMapIsolation, bpf.VonetMapTellings, bpf.VonetMapRefusals}

// loadNetwork loads the programs and attaches them, or takes over the maps of
// a predecessor and replaces its programs: at no time is the machine without.
// Where no bpffs is to be had, the programs end with this process. depth is that
// of jobs' cgroups, 0 if it is not known, types the kernel's.
func loadNetwork(cgroup, pinDir string, depth uint32, types *btf.Cache) (*network, error) {
	pinned := preparePins(pinDir) == nil
	spec, err := bpf.LoadVonet()
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the network programs: %w", err)
	}
	if err := spec.Variables["depth_of_job"].Set(depth); err != nil {
		return nil, xos.Errorf(xos.Internal, "telling the network programs where jobs are: %w", err)
	}
	opts := &ebpf.CollectionOptions{Cache: types}
	if pinned {
		opts.Maps.PinPath = pinDir
		for _, name := range networkMaps {
			spec.Maps[name].Pinning = ebpf.PinByName
		}
	}
	n := &network{pinned: pinned}
	if err := n.loadAny(spec, opts); err != nil {
		return nil, xos.Errorf(xos.NotSupported, "this kernel refuses the network programs: %w", err)
	}
	if n.anew { // it is of the counts that are gone
		os.Remove(filepath.Join(pinDir, "lost_in_log"))
	}
	if n.inLog, err = openInLog(pinDir, pinned); err == nil {
		err = n.keep(bpfSystem)
	}
	if err == nil {
		err = n.keep(bpfStranger)
	}
	if err != nil {
		n.close()
		return nil, err
	}
	for _, p := range []struct {
		name   string
		attach ebpf.AttachType
		prog   *ebpf.Program
	}{
		{"connect4", ebpf.AttachCGroupInet4Connect, n.objs.XosConnect4},
		{"connect6", ebpf.AttachCGroupInet6Connect, n.objs.XosConnect6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, n.objs.XosSendmsg4},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, n.objs.XosSendmsg6},
		// The last: those before it know what it has labelled, and what it has not.
		{"sock_create", ebpf.AttachCGroupInetSockCreate, n.objs.XosSockCreate},
	} {
		l, err := attach(cgroup, p.attach, p.prog, filepath.Join(pinDir, "link_"+p.name), pinned)
		if err != nil {
			n.close()
			return nil, xos.Errorf(xos.NotSupported, "attaching %s to %s: %w", p.name, cgroup, err)
		}
		n.links = append(n.links, l)
	}
	if n.devices == nil {
		l, err := attach(cgroup, ebpf.AttachCGroupDevice, n.objs.XosDevice, filepath.Join(pinDir, "link_device"), pinned)
		if err == nil {
			n.links = append(n.links, l)
		}
		n.devices = err
	}
	return n, nil
}

// attach replaces the program of a pinned link, or makes a new link. A link
// whose cgroup is gone is replaced by a new one.
func attach(cgroup string, at ebpf.AttachType, prog *ebpf.Program, pin string, pinned bool) (link.Link, error) {
	if pinned {
		if old, err := link.LoadPinnedLink(pin, nil); err == nil {
			if err := old.Update(prog); err == nil {
				return old, nil
			}
			old.Unpin()
			old.Close()
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: at, Program: prog})
	if err != nil {
		return nil, err
	}
	if pinned {
		if err := l.Pin(pin); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// preparePins makes dir on a bpffs, which it mounts on dir's parent where
// nobody has done so (in containers; systemd does it on a machine).
func preparePins(dir string) error {
	parent := filepath.Dir(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(parent, &st); err != nil {
		return err
	}
	if st.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", parent, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700)
}

// fire proves that the programs decide: the connect of one socket, named to
// them by its cookie, must be refused.
func (n *network) fire() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return xos.Errorf(xos.Unavailable, "probing the network programs: %w", err)
	}
	defer l.Close()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) {
			cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
			if err == nil {
				err = n.objs.Probe.Put(uint32(0), cookie)
			}
			inner = err
		})
		return errors.Join(err, inner)
	}}
	c, err := dialer.Dial("tcp4", l.Addr().String())
	n.objs.Probe.Put(uint32(0), uint64(0))
	if err == nil {
		c.Close()
		return xos.Errorf(xos.NotSupported, "the network programs load but do not fire: this process is outside their cgroup")
	}
	if !errors.Is(err, unix.EPERM) {
		return xos.Errorf(xos.NotSupported, "probing the network programs: %w", err)
	}
	return nil
}

// close gives up descriptors; pinned links stay in force.
func (n *network) close() error {
	var errs []error
	for _, l := range n.links {
		errs = append(errs, l.Close())
	}
	if n.inLog.m != nil {
		errs = append(errs, n.inLog.m.Close())
	}
	return errors.Join(append(errs, n.objs.Close())...)
}
