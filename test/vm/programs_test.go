package vm_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// sources are where the tree's programs are that the machines run, by name: packages of
// tests, but for those of commands.
var sources = map[string]struct {
	pkg     string
	command bool
}{
	"apart.test": {pkg: "../apart"},
	"guard.test": {pkg: "../../nodeguard/guard"},
	"hog":        {pkg: "./hog", command: true},
	"prober":     {pkg: "../apart/prober", command: true},
	"uring.test": {pkg: "../uring"},
}

// programs are those, each built once for all machines: build gives where it is, when it
// is there.
type programs struct {
	build map[string]func() (string, error)
}

// newPrograms has them built while machines boot.
func newPrograms(t *testing.T) *programs {
	dir, p := t.TempDir(), &programs{map[string]func() (string, error){}}
	for name, program := range sources {
		argv := []string{"test", "-c"}
		if program.command {
			argv = []string{"build"}
		}
		bin := filepath.Join(dir, name)
		cmd := exec.CommandContext(t.Context(), "go", append(argv, "-trimpath", "-ldflags=-s -w", "-o", bin, program.pkg)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		p.build[name] = sync.OnceValues(func() (string, error) {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("building %s: %w\n%s", name, err, strings.TrimSpace(string(out)))
			}
			return bin, err
		})
	}
	var building sync.WaitGroup
	building.Go(func() {
		for _, name := range slices.Sorted(maps.Keys(sources)) {
			_, _ = p.build[name]() // who needs it is told
		}
	})
	t.Cleanup(building.Wait)
	return p
}
