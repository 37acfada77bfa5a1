// Package e2e holds the end-to-end tests: the packages of this tree, installed
// with apt on a grid of Debian machines, used as people use them.
package e2e

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// grid is the one that all tests of this package share.
var grid *testbed.Grid

func TestMain(m *testing.M) {
	if os.Getenv("XOS_DEBS") == "" {
		os.Exit(m.Run()) // the tests say that they need it
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	g, _, err := story.Up(ctx, story.Options{Name: "e2e", Debs: os.Getenv("XOS_DEBS"), Out: os.Stderr, Log: slog.New(slog.DiscardHandler)})
	cancel()
	if err != nil {
		os.Stderr.WriteString("e2e: " + err.Error() + "\n")
		os.Exit(1)
	}
	grid = g
	code := 1
	// The VO of all tests but the story.
	if _, err := g.Node("core").Output(context.Background(), "xos", "vo", "create", "lab"); err != nil {
		os.Stderr.WriteString("e2e: " + err.Error() + "\n")
	} else {
		code = m.Run()
	}
	if err := g.Stop(context.Background()); err != nil {
		os.Stderr.WriteString("e2e: " + err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

// needGrid gives the grid, and a context that ends before go test does.
func needGrid(t *testing.T) (context.Context, *testbed.Grid) {
	t.Helper()
	if grid == nil {
		need.Missing(t, "packages", "make test-e2e builds them and sets XOS_DEBS")
	}
	need.Root(t)
	return t.Context(), grid
}

// TestRootStory is the story that everything else deepens.
func TestRootStory(t *testing.T) {
	ctx, g := needGrid(t)
	var out bytes.Buffer
	teller := &story.Teller{Grid: g, Out: &out}
	for _, step := range story.All() {
		name := step.Who + " " + step.Run
		if step.Shown != "" {
			name = step.Who + " " + step.Shown
		}
		if !t.Run(name[:min(len(name), 70)], func(t *testing.T) {
			if err := teller.Tell(ctx, step); err != nil {
				t.Fatal(err)
			}
		}) {
			t.Fatalf("the story ends here; so far:\n%s\n%s", out.String(), journals(ctx, g))
		}
	}
}

// journals gives the end of the services' logs on all machines.
func journals(ctx context.Context, g *testbed.Grid) string {
	var b strings.Builder
	for _, n := range g.Nodes {
		text, _ := n.Output(ctx, "journalctl", "--no-pager", "-n", "40", "-q", "-u", "xos-*", "-u", "ssh*")
		b.WriteString("== " + n.Name + "\n")
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "is not supported") { // sshd, of certificate extensions
				b.WriteString(line)
			}
		}
	}
	return b.String()
}
