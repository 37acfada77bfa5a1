// Package apart plays the bypass checklist of isolation on a grid of its own:
// what people of another VO, of the same one and of none can see of or do to
// somebody's sessions and jobs on one machine.
package apart

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// grid is shared by the tests of this package. With XOS_KEEP set it outlives
// them and is used again, while the packages are the same.
var grid *testbed.Grid

func TestMain(m *testing.M) {
	if os.Getenv("XOS_HERE") != "" {
		os.Exit(onThisMachine(m))
	}
	debs, keep := os.Getenv("XOS_DEBS"), os.Getenv("XOS_KEEP") != ""
	if debs == "" || os.Geteuid() != 0 {
		os.Exit(m.Run()) // the tests say what they need
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	g, fresh, err := story.Up(ctx, story.Options{Name: "apart", Debs: debs, Keep: keep, Out: os.Stderr, Log: slog.New(slog.DiscardHandler)})
	if err == nil && fresh {
		grid = g
		err = settle(ctx)
	}
	code := 1
	if err == nil {
		grid = g
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "apart:", err)
	}
	if g != nil && !keep {
		if err := g.Stop(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "apart:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// settle makes the people: alice and bob of physics, carol of chemistry, each
// logged in to the grid on the client, and guest, who is node1's own user.
func settle(ctx context.Context) error {
	teller := &story.Teller{Out: os.Stderr, Do: func(ctx context.Context, machine, user, command string) (string, int, error) {
		return story.Run(ctx, node(machine), user, command)
	}}
	for _, s := range append(append([]story.Step{}, story.Administration...), story.Credentials...) {
		if err := teller.Tell(ctx, s); err != nil {
			return err
		}
	}
	out, status, err := story.Run(ctx, node("node1"), "root", "useradd -m -s /bin/bash guest")
	if err == nil && status != 0 {
		err = fmt.Errorf("making guest: status %d: %s", status, out)
	}
	return err
}

// install builds the prober and puts it where everybody on node1 can run it.
func install(ctx context.Context, t *testing.T) {
	t.Helper()
	if here {
		need.File(t, prober)
		return
	}
	bin := filepath.Join(t.TempDir(), "prober")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "./prober")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the prober: %v\n%s", err, out)
	}
	if err := grid.Node("node1").PushFile(ctx, bin, prober); err != nil {
		t.Fatal(err)
	}
}

// prober is where the programs of victims and attackers are on node1.
const prober = "/usr/local/bin/prober"

// needGrid gives a context that ends before go test does.
func needGrid(t *testing.T) context.Context {
	t.Helper()
	need.Root(t)
	if grid == nil && !here {
		need.Missing(t, "packages", "make debs builds them; set XOS_DEBS")
	}
	return t.Context()
}

// on1 runs a shell command on node1 as one of its own users.
func on1(ctx context.Context, t *testing.T, user, command string) string {
	t.Helper()
	out, status, err := story.Run(ctx, node("node1"), user, command)
	if err != nil || status != 0 {
		t.Fatalf("%s: %s: status %d (%v)\n%s", user, command, status, err, out)
	}
	return strings.TrimSpace(out)
}
