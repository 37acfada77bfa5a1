// Package house holds the map of docs/ARCHITECTURE.md as a test: what each
// room may import, and what each binary may link.
package house

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/xtreemos/xos"

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath  string
	Dir         string
	Name        string
	GoFiles     []string
	CgoFiles    []string
	Imports     []string
	Deps        []string
	TestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,CgoFiles,Imports,Deps,TestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages", len(all))
	}
	return all
}

// room gives a package's path within the module; "" is the root.
func room(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

// under reports whether path is one of the rooms or inside one.
func under(path string, rooms ...string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return path == r || strings.HasPrefix(path, r+"/") })
}

// contracts are the rooms whose root package is a contract.
var contracts = []string{"infra/kv", "infra/bus", "vom", "session", "xfs", "aem", "srds", "nodeguard"}

// shared are rooms that anything but a contract may import.
var shared = []string{"api", "infra/rpc", "infra/audit", "vom/credential", "vom/order", "vom/consent"}

// parts belong to a subsystem whose implementations must agree on them; within
// that subsystem they may be imported.
var parts = []string{"infra/kv/overlay", "infra/bus/wire", "xfs/frame", "session/wire", "session/process", "nodeguard/denial", "nodeguard/isolation", "aem/unit", "aem/order", "aem/usage"}

// mayImport says what an implementation may import beyond its own subsystem's
// contract, the contracts, and what is shared.
var mayImport = map[string][]string{
	"session/mount":    {"vom/machine"},
	"session/service":  {"session/account", "session/agent", "session/residue", "vom/trust", "vom/machine"},
	"vom/trust":        {"vom/machine", "vom/krl"},
	"vom/crl":          {"vom/xvoms"},
	"session/wire":     {"session/shim"},
	"nss_xos":          {"session/shim", "session/wire"},
	"subid_xos":        {"session/shim", "session/wire"},
	"pam_xos":          {"session/shim", "session/wire"},
	"nodeguard/guard":  {"bpf", "session/process"},
	"vom/cda":          {"vom/authority"},
	"vom/rca":          {"vom/xvoms", "vom/authority", "vom/cda"},
	"xfs/dir":          {"xfs/mrc"},
	"xfs/mrc":          {"xfs/frame"},
	"xfs/osd":          {"xfs/frame"},
	"xfs/fuse":         {"xfs/client"},
	"xfs/client":       {"xfs/frame"},
	"aem/execution":    {"aem/unit"},
	"aem/job":          {"aem/unit", "aem/shadow"},
	"aem/supervise":    {"aem/unit"},
	"nodeguard/denial": {"bpf"},
}

func TestRooms(t *testing.T) {
	for _, p := range list(t) {
		at, ok := room(p.ImportPath)
		if !ok || under(at, "cmd", "test") || strings.HasSuffix(at, "test") {
			continue // cmd wires, tests may see everything
		}
		for _, path := range p.Imports {
			to, ok := room(path)
			if !ok || to == "" || to == at {
				continue
			}
			switch {
			case slices.Contains(contracts, at):
				if !slices.Contains(contracts, to) {
					t.Errorf("contract %s imports %s: a contract imports shared nouns and other contracts only", at, to)
				}
			case under(to, "cmd"):
				t.Errorf("%s imports %s: cmd wires, nothing imports it", at, to)
			case under(to, "test") && !under(to, shared...):
				t.Errorf("%s imports %s: nothing but tests imports tests", at, to)
			case slices.Contains(contracts, to), under(to, shared...), under(to, mayImport[at]...):
			case slices.Contains(parts, to) && slices.ContainsFunc(contracts, func(c string) bool { return under(at, c) && under(to, c) }):
			case strings.HasPrefix(to, at+"/"):
				t.Errorf("%s imports its child %s", at, to)
			default:
				t.Errorf("%s imports %s: an implementation imports contracts, not another's implementation; if it must, say so in mayImport", at, to)
			}
		}
	}
}

// links says what a binary must not contain, and why.
var links = []struct{ binary, banned, reason string }{
	{"cmd/xos-node", "github.com/smallstep/certificates", "what runs as root on every machine has no authority in it"},
	{"cmd/xos-node", "go.etcd.io/etcd", "what runs as root stays small"},
	{"cmd/xos-node", "github.com/nats-io/nats-server", "a node talks on the bus; the core serves it"},
	{"cmd/xos-node", "github.com/opencontainers/runc", "containers are started by xos-job, so that xos-node may be restarted"},
	{"cmd/xos-node", module + "/xfs/mrc", "others' metadata is the core's"},
	{"cmd/xos-userdb", "net/http", "what may keep every lookup waiting is small"},
	{"cmd/xos-userdb", "google.golang.org/protobuf", "what may keep every lookup waiting is small"},
	{"cmd/xos-osd", "github.com/smallstep/certificates", "storage certifies nobody"},
	{"cmd/mount.xosfs", "github.com/smallstep/certificates", "a mount certifies nobody"},
	{"cmd/mount.xosfs", "github.com/cockroachdb/pebble", "a mount stores nothing"},
	{"cmd/xos", "github.com/smallstep/certificates", "the command line is small and starts quickly"},
	{"cmd/xos", "github.com/nats-io", "the command line is small and starts quickly"},
}

func TestBinariesLink(t *testing.T) {
	all := list(t)
	for _, l := range links {
		for _, p := range all {
			if p.ImportPath != module+"/"+l.binary {
				continue
			}
			for _, dep := range p.Deps {
				if under(dep, l.banned) {
					t.Errorf("%s links %s: %s", l.binary, dep, l.reason)
				}
			}
		}
	}
}

func TestOnePackageDoc(t *testing.T) {
	for _, p := range list(t) {
		docs := 0
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil && !ast.IsGenerated(f) && strings.TrimSpace(f.Doc.Text()) != "" {
				docs++
			}
		}
		if docs != 1 && len(p.GoFiles) > 0 && !under(mustRoom(p.ImportPath), "api/xos") {
			t.Errorf("%s has %d package docs, want 1", p.ImportPath, docs)
		}
	}
}

func mustRoom(path string) string {
	at, _ := room(path)
	return at
}

func TestMainsAreShort(t *testing.T) {
	for _, p := range list(t) {
		if p.Name != "main" || !under(mustRoom(p.ImportPath), "cmd") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, "main.go"), nil, 0)
		if err != nil {
			t.Errorf("%s: %v", p.ImportPath, err)
			continue
		}
		if n := fset.Position(f.End()).Line; n > 110 {
			t.Errorf("%s/main.go has %d lines: cmd is for wiring", p.ImportPath, n)
		}
	}
}
