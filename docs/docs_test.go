// Package docs holds the pages to the tree: what they name is there.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link   = regexp.MustCompile(`\]\(([^)#:]+)(#[a-z-]*)?\)`)
	quoted = regexp.MustCompile("`([a-z_]+/[A-Za-z0-9_./-]+|[A-Z]+\\.md)`")
	target = regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`)
)

func TestWhatIsNamedExists(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 9 {
		t.Fatalf("only %v (%v)", pages, err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if !exists(filepath.Join(filepath.Dir(page), m[1])) {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			if path := strings.TrimSuffix(m[1], "/"); !anywhere(path) {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			// In prose "make" is a word too: only those that look like targets.
			if before := text[:strings.Index(text, m[0])]; strings.HasSuffix(before, "`") || strings.HasSuffix(before, "    ") {
				if !strings.Contains(string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s says %s, but there is no such target", page, m[0])
				}
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// anywhere finds a path from the top of the tree, or inside one of its parts:
// "kv/pebble" on a page about infra.
func anywhere(path string) bool {
	if exists(filepath.Join("..", path)) {
		return true
	}
	found, _ := filepath.Glob(filepath.Join("..", "*", path))
	return len(found) > 0
}
