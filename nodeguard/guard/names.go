package guard

import (
	"bytes"
	"errors"
	"hash/fnv"

	"github.com/cilium/ebpf"

	"github.com/xtreemos/xos"
)

// names gives each VO a number, by which the BPF programs know it, and never
// the same to two. They are kept where the labels made of them are, in a pinned
// map, so that a successor means the same by a number.
type names struct{ of *ebpf.Map }

// name is a VO's, filled up with zeros.
type name [xos.MaxName]byte

// maxVOs is how many VOs one machine may have seen since it was started.
const maxVOs = 65536

// openNames makes the map, or takes over a predecessor's. Without pins it is
// this process's only, as the labels are.
func openNames(pinDir string, pinned bool) (names, error) {
	spec := &ebpf.MapSpec{Name: "name_of_vo", Type: ebpf.Hash, KeySize: 4, ValueSize: xos.MaxName, MaxEntries: maxVOs, Flags: 1 /* BPF_F_NO_PREALLOC */}
	var opts ebpf.MapOptions
	if pinned {
		spec.Pinning, opts.PinPath = ebpf.PinByName, pinDir
	}
	m, err := ebpf.NewMapWithOptions(spec, opts)
	if err != nil {
		return names{}, xos.Errorf(xos.NotSupported, "making the map of VOs' names: %w", err)
	}
	return names{m}, nil
}

// number gives a VO's number, which begins as a hash of its name. Who chooses a
// name so that its hash is another VO's gets the next number that is free; 0
// and the highest mean "nobody's".
func (n names) number(vo xos.VOName) (uint32, error) {
	if !xos.ValidName(string(vo)) {
		return 0, xos.Errorf(xos.Invalid, "%.80q is no VO's name", vo)
	}
	var want name
	copy(want[:], vo)
	h := fnv.New32a()
	h.Write([]byte(vo))
	num := h.Sum32()
	for range maxVOs + 1 {
		num = min(max(num, 1), 1<<32-2)
		err := n.of.Update(num, want, ebpf.UpdateNoExist)
		if err == nil {
			return num, nil
		} else if !errors.Is(err, ebpf.ErrKeyExist) {
			return 0, xos.Errorf(xos.Unavailable, "numbering VO %s: %w", vo, err)
		}
		var got name
		if err := n.of.Lookup(num, &got); err != nil {
			return 0, xos.Errorf(xos.Unavailable, "numbering VO %s: %w", vo, err)
		}
		if got == want {
			return num, nil
		}
		if num++; num == 1<<32-1 {
			num = 1
		}
	}
	return 0, xos.Errorf(xos.Unavailable, "numbering VO %s: this machine has seen more than %d VOs", vo, maxVOs)
}

// vo is the name of a number, "" for none's.
func (n names) vo(num uint32) xos.VOName {
	var got name
	if n.of.Lookup(num, &got) != nil {
		return ""
	}
	text, _, _ := bytes.Cut(got[:], []byte{0})
	return xos.VOName(text)
}

// all gives the VOs that have numbers.
func (n names) all() (list []xos.VOName, err error) {
	var num uint32
	var of name
	all := n.of.Iterate()
	for all.Next(&num, &of) {
		text, _, _ := bytes.Cut(of[:], []byte{0})
		list = append(list, xos.VOName(text))
	}
	if err := all.Err(); err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listing the numbers of VOs: %w", err)
	}
	return list, nil
}

func (n names) close() error { return n.of.Close() }
