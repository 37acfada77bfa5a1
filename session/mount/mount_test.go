package mount

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
)

func TestConfiguration(t *testing.T) {
	u := Units{Run: t.TempDir(), Core: "core:7443", Roots: "/etc/xos/trust/roots.pem"}
	m := session.Mapping{Account: xos.Account{User: "alice", VO: "physics"}, UID: 1900000000, Home: "/home/xos/physics/alice",
		Groups: []session.Group{{Name: "physics", GID: 1900000001}, {Name: "physics:higgs", GID: 1900000002}}}
	if err := u.write("home-physics-alice", m); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(u.Run, "mounts/home-physics-alice.toml")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got config
	if err := toml.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Account != "alice@physics" || got.UID != m.UID || got.Groups["physics:higgs"] != 1900000002 || got.Credentials != filepath.Join(u.Run, "cred/1900000000") {
		t.Errorf("%+v", got)
	}
	if got := unitName("home-physics-alice"); got != `xos-mount@home\x2dphysics\x2dalice.service` {
		t.Error(got)
	}
}

func TestVolumesStayInTheirPlace(t *testing.T) {
	u := Units{Run: t.TempDir()}
	for _, v := range []xos.VolumeID{"", "..", "../../etc/x", "a/b", "A", "a b", "a\n", "é", "a\x00"} {
		if err := u.write(v, session.Mapping{}); !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: %v", v, err)
		}
		if err := u.Unmount(t.Context(), v, session.Mapping{}); !xos.Is(err, xos.Invalid) {
			t.Errorf("unmounting %q: %v", v, err)
		}
	}
}
