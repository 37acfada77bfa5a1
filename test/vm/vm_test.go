package vm_test

import (
	"testing"

	"github.com/xtreemos/xos/test/vm"
)

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []vm.Config{
		{},
		{Name: "Upper"},
		{Name: "../x"},
		{Name: "toolongforaname123"},
		{Name: "ok", Kernel: "sid"},
	} {
		if m, err := vm.Start(t.Context(), cfg); err == nil {
			m.Close()
			t.Errorf("%+v started", cfg)
		}
	}
}
