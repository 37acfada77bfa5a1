package guard

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/session"
)

// loadAny loads the programs, or what this kernel takes of them: without what
// cannot be taken over of a predecessor's, without reading the kernel's memory
// (lockdown), so that refusals are told without executables, or without knowing of
// it (no BTF) too, so that each socket bears a label.
func (n *network) loadAny(spec *ebpf.CollectionSpec, opts *ebpf.CollectionOptions) error {
	err := n.load(spec, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		n.anew = true
		for _, name := range []string{bpf.VonetMapTellings, bpf.VonetMapRefusals} {
			os.Remove(filepath.Join(opts.Maps.PinPath, name))
		}
		err = n.load(spec, opts)
	}
	if err == nil {
		return nil
	}
	if serr := spec.Variables["may_read"].Set(uint32(0)); serr != nil {
		return errors.Join(err, serr)
	}
	if n.load(spec, opts) == nil {
		return nil
	}
	// Where owners are known, a predecessor's sockets have no label: without
	// owners they would be nobody's.
	if knowsOwners(opts) {
		return err
	}
	if serr := spec.Variables["may_own"].Set(uint32(0)); serr != nil {
		return errors.Join(err, serr)
	}
	opts.Programs.KernelTypes = spec.Types // where nothing is read, nothing need be found
	if n.load(spec, opts) != nil {
		return err
	}
	return nil
}

// knowsOwners says whether the kernel, by its types or those given instead, describes
// sockets.
func knowsOwners(opts *ebpf.CollectionOptions) bool {
	types := opts.Programs.KernelTypes
	if types == nil {
		var err error
		if types, err = opts.Cache.Kernel(); err != nil {
			return false
		}
	}
	_, err := types.AnyTypeByName("tcp_sock")
	return err == nil
}

// load loads the programs of the network, and then those without which it does.
func (n *network) load(spec *ebpf.CollectionSpec, opts *ebpf.CollectionOptions) error {
	needed := spec.Copy()
	delete(needed.Programs, bpf.VonetProgXosDevice)
	delete(needed.Programs, bpf.VonetProgXosAsk)
	c, err := ebpf.NewCollectionWithOptions(needed, *opts)
	if err != nil {
		return err
	}
	defer c.Close()
	extra := func(name string) (*ebpf.Program, error) {
		one := spec.Copy()
		for other := range one.Programs {
			if other != name {
				delete(one.Programs, other)
			}
		}
		for _, m := range one.Maps {
			m.Pinning = ebpf.PinNone // they are there
		}
		got, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: c.Maps, Programs: opts.Programs, Cache: opts.Cache})
		if err != nil {
			return nil, xos.Errorf(xos.NotSupported, "this kernel refuses the program %s: %w", name, err)
		}
		defer got.Close()
		return got.DetachProgram(name), nil
	}
	n.ask, _ = extra(bpf.VonetProgXosAsk) // then nobody is answered; see Shares
	n.objs.XosDevice, n.devices = extra(bpf.VonetProgXosDevice)
	n.objs.XosAsk = n.ask
	for name, to := range map[string]**ebpf.Program{
		bpf.VonetProgXosSockCreate: &n.objs.XosSockCreate, bpf.VonetProgXosConnect4: &n.objs.XosConnect4, bpf.VonetProgXosConnect6: &n.objs.XosConnect6,
		bpf.VonetProgXosSendmsg4: &n.objs.XosSendmsg4, bpf.VonetProgXosSendmsg6: &n.objs.XosSendmsg6,
	} {
		*to = c.DetachProgram(name)
	}
	for name, to := range map[string]**ebpf.Map{
		bpf.VonetMapCounts: &n.objs.Counts, bpf.VonetMapIsolation: &n.objs.Isolation, bpf.VonetMapProbe: &n.objs.Probe,
		bpf.VonetMapVoOfSocket: &n.objs.VoOfSocket, bpf.VonetMapVoOfUid: &n.objs.VoOfUid,
		bpf.VonetMapTellings: &n.objs.Tellings, bpf.VonetMapRefusals: &n.objs.Refusals,
	} {
		*to = c.DetachMap(name)
	}
	return nil
}

// fireDevices proves that the program of devices decides: it must refuse the
// null device to a grid uid that nobody has, and that is named to it.
func (n *network) fireDevices() error {
	if n == nil {
		return xos.Errorf(xos.NotSupported, "the programs are not loaded")
	}
	if n.devices != nil {
		return n.devices
	}
	_, act, end, err := onThread(simple(asNobody(openNull)))
	if err != nil {
		return xos.Errorf(xos.Unavailable, "probing the program of devices: %w", err)
	}
	defer end()
	if err := n.objs.Probe.Put(uint32(1), uint64(session.LastID)); err != nil {
		return xos.Errorf(xos.Internal, "arming the probe of devices: %w", err)
	}
	said := act()
	if err := n.objs.Probe.Put(uint32(1), uint64(0)); err != nil {
		return xos.Errorf(xos.Internal, "disarming the probe of devices: %w", err)
	}
	if !errors.Is(said, unix.EPERM) {
		return xos.Errorf(xos.NotSupported, "the program of devices loads but does not fire (%v): this process is outside its cgroup", said)
	}
	return nil
}

// asNobody does something with the real uid that nobody has, and root's rights,
// on this thread alone.
func asNobody(act func() error) func() error {
	return func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(session.LastID), ^uintptr(0), ^uintptr(0)); e != 0 {
			return os.NewSyscallError("setresuid", e)
		}
		said := act()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 0, ^uintptr(0), ^uintptr(0)); e != 0 {
			return os.NewSyscallError("setresuid back", e)
		}
		return said
	}
}

// devicesAt gives what the paths and patterns of a class are on this machine
// now. What is not there, or is no device, is none.
func devicesAt(patterns []string) (found []bpf.VonetXosRuleKey) {
	for _, p := range patterns {
		paths, _ := filepath.Glob(p) // its form was checked
		for _, at := range paths {
			var st unix.Stat_t
			if unix.Stat(at, &st) != nil {
				continue
			}
			key := bpf.VonetXosRuleKey{B: unix.Major(st.Rdev), C: unix.Minor(st.Rdev)}
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFCHR:
				key.Kind = uint32(bpf.VonetXosRuleKindXOS_RULE_CHAR)
			case unix.S_IFBLK:
				key.Kind = uint32(bpf.VonetXosRuleKindXOS_RULE_BLOCK)
			default:
				continue
			}
			found = append(found, key)
		}
	}
	return found
}
