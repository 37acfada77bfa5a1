package guard

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/test/need"
)

// TestRootProgramsThatReadNothing: where the kernel does not describe its memory,
// or lets nobody read it, the programs are loaded all the same.
func TestRootProgramsThatReadNothing(t *testing.T) {
	need.Root(t)
	spec, err := bpf.LoadVonet()
	if err != nil {
		t.Fatal(err)
	}
	b, err := btf.NewBuilder([]btf.Type{&btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	nothing, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var n network
	opts := &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: nothing}}
	if err := n.load(spec, opts); err == nil {
		n.close()
		t.Fatal("what reads the kernel's memory is loaded without knowing of it: this proves nothing")
	}
	if err := n.loadAny(spec, opts); err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if n.devices != nil || n.objs.XosConnect4 == nil {
		t.Errorf("not all are loaded: %v", n.devices)
	}
}
