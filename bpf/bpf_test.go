package bpf_test

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/test/need"
)

func TestRootProgramsLoad(t *testing.T) {
	need.Root(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Log(err) // kernels since 5.11 need it no more
	}
	var objs bpf.VonetObjects
	if err := bpf.LoadVonetObjects(&objs, nil); err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			t.Fatalf("%+v", v)
		}
		t.Fatal(err)
	}
	objs.Close()
	account, err := bpf.LoadAccount()
	if err != nil {
		t.Fatal(err)
	}
	delete(account.Programs, "xos_opened") // a trampoline's, which only some kernels have
	c, err := ebpf.NewCollection(account)
	if err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			t.Fatalf("%+v", v)
		}
		t.Fatal(err)
	}
	c.Close()
}
