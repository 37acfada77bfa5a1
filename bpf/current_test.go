package bpf_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xtreemos/xos/test/need"
)

// TestObjectsAreCurrent compiles the programs again, as go generate does, and
// compares: what is in force must be what can be read.
func TestObjectsAreCurrent(t *testing.T) {
	for _, tool := range []string{"clang-14", "llvm-strip-14"} {
		if _, err := exec.LookPath(tool); err != nil {
			need.Missing(t, tool, "the objects are compared where the compiler is that made them: make setup installs it on Debian 12, Debian 13 has it no more")
		}
	}
	need.File(t, "/usr/include/bpf/bpf_helpers.h")
	dir := t.TempDir()
	for _, pattern := range []string{"*.c", "*.h", "bpf.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	source, err := os.ReadFile("bpf.go")
	if err != nil {
		t.Fatal(err)
	}
	bpf2go := filepath.Join(dir, "bpf2go")
	if out, err := exec.Command("go", "build", "-o", bpf2go, "github.com/cilium/ebpf/cmd/bpf2go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made := 0
	for line := range strings.Lines(string(source)) {
		args, ok := strings.CutPrefix(line, "//go:generate go run github.com/cilium/ebpf/cmd/bpf2go ")
		if !ok {
			continue
		}
		cmd := exec.Command("sh", "-c", `exec "$0" `+args, bpf2go)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPACKAGE=bpf")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		made++
	}
	generated, err := filepath.Glob("*_bpfel.*")
	if err != nil || len(generated) != 4*made {
		t.Fatalf("%d commands have made %q (%v)", made, generated, err)
	}
	for _, name := range generated {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if then, err := os.ReadFile(name); err != nil || !bytes.Equal(now, then) {
			t.Errorf("%s is not what its source gives (%v): run go generate ./bpf", name, err)
		}
	}
}
