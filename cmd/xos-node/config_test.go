package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
)

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "site.cedar")
	permits := filepath.Join(dir, "permits.cedar")
	os.WriteFile(policy, []byte(`forbid (principal, action == Action::"run", resource);`), 0o600)
	os.WriteFile(permits, []byte(`permit (principal, action, resource);`), 0o600)
	shares, mistaken := filepath.Join(dir, "isolation.toml"), filepath.Join(dir, "mistaken.toml")
	os.WriteFile(shares, []byte("share = [\"network\"]"), 0o600)
	os.WriteFile(mistaken, []byte("share = [\"network\"]\nforbid = [\"work\"]"), 0o600)
	for _, tc := range []struct{ text, says string }{
		{"", ""},
		{`core = "core.example.org"`, ""},
		{`core = "core:7443"` + "\nvos = [\"physics\"]\nbanned = [\"eve\", \"bob@physics\"]\nlinger = \"5m\"\npolicy = \"" + policy + `"`, ""},
		{`policy = "` + permits + `"`, "a site only forbids"},
		{`isolation = "` + shares + `"`, ""},
		{`isolation = "` + mistaken + `"`, "line 2: \"work\" is nothing that can be forbidden"},
		{`isolation = "/nonexistent"`, "site's policy of isolation"},
		{`policy = "/nonexistent"`, "site's policy"},
		{`colour = "blue"`, "does not know"},
		{`name = "Node 1"`, "cannot be a node's name"},
		{`listen = "7444"`, "no host:port"},
		{`advertise = ":7444"`, "no host:port"},
		{`vos = ["sudo"]`, "cannot be a VO's name"},
		{`vos = ["a:b"]`, "cannot be a VO's name"},
		{`banned = ["x y"]`, "neither an account nor a user"},
		{`linger = "0s"`, "too short"},
		{`shell = "bash"`, "no absolute path"},
		{`linger = 5`, "reading"},
		{`subids = "2013265920-2147418111"`, ""},
		{`subids = "2013265920"`, "no range of ids"},
		{`subids = "100000-600000000"`, "the ids of the grid"},
	} {
		path := filepath.Join(dir, "node.toml")
		os.WriteFile(path, []byte(tc.text), 0o600)
		cfg, err := readConfig(path)
		switch {
		case tc.says == "" && err != nil:
			t.Errorf("%s: %v", tc.text, err)
		case tc.says != "" && (!xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: %v, want %q", tc.text, err, tc.says)
		case tc.text == `core = "core.example.org"` && (cfg.Core != "core.example.org:7443" || cfg.Bus != "core.example.org:7442"):
			t.Errorf("core %s, bus %s", cfg.Core, cfg.Bus)
		}
	}
}
