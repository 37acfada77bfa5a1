package shim_test

import (
	"strings"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/shim"
	"github.com/xtreemos/xos/session/wire"
)

var names = []string{
	"", "@", ":", "a@b", "alice@physics", "root@physics", "alice@root", "admin@physics", "alice@lxd", "incus-admin", "incus-admins", "libvirt:x", "xos@physics", "alice@physics@x",
	"alice", "physics", "physics:higgs", "physics:", ":higgs", "physics:higgs:x", "docker", "docker:x", "sudo",
	"Alice@physics", "1a@b", "_a@b", "a-@b", "a.@b", "a.b-c_d@e-1", "a@b.", "a@-b", "a @b", "a@b\n", "a\n@b",
	"älice@physics", "a@physics:higgs", "../../etc@x", "a/b@c", "..@a",
	strings.Repeat("a", 32) + "@" + strings.Repeat("b", 32),
	strings.Repeat("a", 33) + "@b", "a@" + strings.Repeat("b", 33), strings.Repeat("a", 200) + "@b",
	strings.Repeat("a", 32) + ":" + strings.Repeat("b", 32), strings.Repeat("a", 32) + ":" + strings.Repeat("b", 33),
	strings.Repeat("a@", 100),
}

// compare holds the modules' grammar of names to the one of the daemons.
func compare(t *testing.T, name string) {
	a, err := xos.ParseAccount(name)
	vo, ok := shim.IsLogin(name)
	if ok != (err == nil) || ok && vo != string(a.VO) {
		t.Errorf("login %q: C says %q, %v; Go %v, %v", name, vo, ok, a, err)
	}
	vo, plain, ok := shim.IsGroup(name)
	if want := wire.ValidGroup(name); ok != want {
		t.Errorf("group %q: C says %v, Go %v", name, ok, want)
	}
	if ok && (plain != !strings.ContainsAny(name, "@:") || !strings.Contains(name, vo) || !xos.ValidName(vo)) {
		t.Errorf("group %q: VO %q, plain %v", name, vo, plain)
	}
}

func TestNames(t *testing.T) {
	for _, n := range names {
		compare(t, n)
	}
}

func FuzzNames(f *testing.F) {
	for _, n := range names {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !strings.Contains(name, "\x00") { // which ends a string of C
			compare(t, name)
		}
	})
}
