package guard

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// lsm is the programs of bpf/lsm.c, each attached to the kernel's check that it
// is named for. What one kernel has not, others have: so each is loaded by
// itself, and stays in force even where another is missing.
type lsm struct {
	spec   *ebpf.CollectionSpec
	pinDir string // "" without a bpffs
	maps   map[string]*ebpf.Map
	links  []link.Link      // those that no pin holds
	failed map[string]error // hooks that are not attached
}

// probeSection is the variable that programs compare with what they are; a map, which
// is pinned by a name that a bpffs allows.
const probeSection, probePin = ".data.probe", "lsm_probe"

// persistent are maps that a successor takes over, by their pins. What programs found
// threads to be is not among them: those that go on keep it themselves.
var persistent = []string{probePin, bpf.LsmMapVoOfCgroup, bpf.LsmMapLsmCounts, bpf.LsmMapLsmTallies, bpf.LsmMapSocketLists, bpf.LsmMapLabelChanges}

// newLSM makes the programs' maps, or takes over a predecessor's. The programs
// know uids, and what VOs share, by the maps of the network programs, tell of
// refusals as they do, and count
// for each job in used, which may be nil.
func newLSM(n *network, used *ebpf.Map, pinDir string) (*lsm, error) {
	spec, err := bpf.LoadLsm()
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the LSM programs: %w", err)
	}
	spec.Maps[probeSection].Flags |= unix.BPF_F_MMAPABLE // as the library makes it, and then wants it
	l := &lsm{spec: spec, failed: map[string]error{}}
	if preparePins(pinDir) == nil {
		l.pinDir = pinDir
	}
	if err := l.makeMaps(n, used); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// start loads and attaches the programs; those of a predecessor that are the
// same go on if its maps were taken over. It fails where this kernel has none of
// them.
func (l *lsm) start(taken bool, types *btf.Cache) error {
	mark := marked(l.spec)
	if kernel, err := types.Kernel(); err == nil {
		leaveOutCasts(l.spec, kernel)
	}
	for i, h := range hooks {
		pin := "link_lsm_" + mark + "_" + h.name
		if l.pinDir != "" && taken && isLink(filepath.Join(l.pinDir, pin)) {
			continue
		}
		err := l.enforce(h.name, pin, types)
		if err != nil && len(l.failed) == i && !errors.Is(err, ebpf.ErrNotSupported) {
			// It will not take the others either.
			return xos.Errorf(xos.NotSupported, "this kernel refuses BPF LSM programs: %w", err).
				WithHint("a kernel with CONFIG_BPF_LSM and \"bpf\" in its lsm= list has them: Debian 12 and later")
		}
		if err != nil {
			l.failed[h.name] = err
		}
	}
	l.dropOthers(mark)
	return nil
}

// whole reports whether all maps of a predecessor are there to be taken over.
// Without one of them its programs look at what nobody fills any more.
func whole(pinDir string) bool {
	for _, name := range append(append([]string{bpf.LsmMapUsed}, networkMaps...), persistent...) {
		if !exists(filepath.Join(pinDir, name)) {
			return false
		}
	}
	return true
}

// marked names a version of the programs, by their instructions and the names of what
// these refer to.
func marked(spec *ebpf.CollectionSpec) string {
	sum := sha256.New()
	var line []byte
	for _, h := range hooks {
		for _, ins := range spec.Programs["xos_"+h.name].Instructions {
			line = binary.LittleEndian.AppendUint32(line[:0], uint32(ins.OpCode))
			line = append(line, byte(ins.Dst), byte(ins.Src))
			line = binary.LittleEndian.AppendUint16(line, uint16(ins.Offset))
			line = binary.LittleEndian.AppendUint64(line, uint64(ins.Constant))
			line = append(append(append(append(line, ins.Reference()...), 0), ins.Symbol()...), 0)
			sum.Write(line)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:4])
}

// leaveOutCasts has programs take pointers as the kernel gives them where it has no
// function to cast them. Elsewhere the kernel makes the same of a call of that.
func leaveOutCasts(spec *ebpf.CollectionSpec, kernel *btf.Spec) {
	var cast *btf.Func
	if kernel.TypeByName("bpf_rdonly_cast", &cast) == nil {
		return
	}
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; ins.IsKfuncCall() {
				p.Instructions[i] = asm.Mov.Reg(asm.R0, asm.R1)
			}
		}
	}
}

func isLink(pin string) bool {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// dropOthers ends programs of other versions, now that this one's are in force;
// where one of this version is not, the other's stays.
func (l *lsm) dropOthers(mark string) {
	if l.pinDir == "" {
		return
	}
	pins, _ := filepath.Glob(filepath.Join(l.pinDir, "link_lsm_*"))
	for _, pin := range pins {
		version, hook, _ := strings.Cut(strings.TrimPrefix(filepath.Base(pin), "link_lsm_"), "_")
		if version != mark && l.failed[hook] == nil {
			os.Remove(pin)
		}
	}
	for _, old := range []string{"policies", "denials"} { // maps that earlier versions had
		os.Remove(filepath.Join(l.pinDir, old))
	}
}

// makeMaps makes the maps, or takes over those of a predecessor. One whose
// layout has changed is made anew: labels of uids, which nothing else can give
// back, are not among them.
func (l *lsm) makeMaps(n *network, used *ebpf.Map) error {
	others := map[string]*ebpf.Map{bpf.LsmMapVoOfUid: n.objs.VoOfUid, bpf.LsmMapIsolation: n.objs.Isolation,
		bpf.LsmMapTellings: n.objs.Tellings, bpf.LsmMapRefusals: n.objs.Refusals}
	if used != nil {
		others[bpf.LsmMapUsed] = used
	}
	var err error
	if l.maps, err = newMaps(l.spec, others, l.pinDir); errors.Is(err, ebpf.ErrMapIncompatible) {
		for _, name := range persistent {
			os.Remove(filepath.Join(l.pinDir, name))
		}
		l.maps, err = newMaps(l.spec, others, l.pinDir)
	}
	if err != nil {
		return xos.Errorf(xos.NotSupported, "this kernel refuses the LSM programs' maps: %w", err)
	}
	return nil
}

func newMaps(spec *ebpf.CollectionSpec, others map[string]*ebpf.Map, pinDir string) (map[string]*ebpf.Map, error) {
	only := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, ByteOrder: spec.ByteOrder, Types: spec.Types}
	for name, m := range spec.Maps {
		if !strings.HasPrefix(name, ".") || name == probeSection { // other sections have no variable that a program reads
			only.Maps[name] = m.Copy()
		}
	}
	only.Maps[probeSection].Name = probePin
	opts := ebpf.CollectionOptions{MapReplacements: others}
	if pinDir != "" {
		opts.Maps.PinPath = pinDir
		for _, m := range only.Maps {
			if slices.Contains(persistent, m.Name) {
				m.Pinning = ebpf.PinByName
			}
		}
	}
	c, err := ebpf.NewCollectionWithOptions(only, opts)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	maps := map[string]*ebpf.Map{}
	for name := range only.Maps {
		maps[name] = c.DetachMap(name)
	}
	return maps, nil
}

// enforce loads one program and attaches it. Kernels cannot replace a program
// in its place: the new one is in force before the old one goes, and both are
// for a moment.
func (l *lsm) enforce(hook, pin string, types *btf.Cache) error {
	name, spec := "xos_"+hook, l.spec
	one := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{name: spec.Programs[name].Copy()},
		ByteOrder: spec.ByteOrder, Types: spec.Types}
	for name := range l.maps {
		one.Maps[name] = spec.Maps[name].Copy()
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: l.maps, Cache: types})
	if err != nil {
		return xos.Errorf(xos.NotSupported, "loading %s: %w", hook, err)
	}
	defer c.Close()
	at, err := link.AttachLSM(link.LSMOptions{Program: c.Programs[name]})
	if err != nil {
		return xos.Errorf(xos.NotSupported, "attaching %s: %w", hook, err)
	}
	if l.pinDir == "" {
		l.links = append(l.links, at)
		return nil
	}
	defer at.Close()
	if err := replacePin(at, l.pinDir, pin); err != nil {
		return xos.Errorf(xos.Internal, "pinning %s: %w", hook, err)
	}
	return nil
}

// replacePin pins a link in the place of another, which ends with its pin.
func replacePin(at link.Link, dir, name string) error {
	next := filepath.Join(dir, "link_next_"+name) // a bpffs allows no dots
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := at.Pin(next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(dir, name))
}

// close gives up descriptors; what is pinned stays in force.
func (l *lsm) close() error {
	var errs []error
	for _, at := range l.links {
		errs = append(errs, at.Close())
	}
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
