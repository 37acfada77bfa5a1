package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestManual: each command that may be called has a page that says what it
// does, and so has each short name.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if err := writeManual(dir); err != nil {
		t.Fatal(err)
	}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		data, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		text := string(data)
		if !strings.Contains(text, name+` - `+c.Short) && !strings.Contains(strings.ReplaceAll(text, `\-`, "-"), name+" - "+c.Short) {
			t.Errorf("the page of %s does not say %q", name, c.Short)
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				visit(sub)
			}
		}
	}
	visit(newRootCommand())
	for short, sub := range shortNames {
		data, err := os.ReadFile(filepath.Join(dir, short+".1"))
		if err != nil {
			t.Error(err)
		} else if text := string(data); !strings.Contains(text, short+" ") || strings.Contains(text, "xos "+sub) || !strings.Contains(text, "xos(1)") {
			t.Errorf("the page of %s:\n%s", short, text)
		}
	}
}

func TestAsSubcommand(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "sub"},
		{"-- sleep 1", "sub -- sleep 1"},
		{"__complete --n", "__complete sub --n"},
		{"__completeNoDesc --n", "__completeNoDesc sub --n"},
		{"-- __complete", "sub -- __complete"},
	} {
		if got := asSubcommand("sub", strings.Fields(c.args)); strings.Join(got, " ") != c.want {
			t.Errorf("xsub %s is xos %q, want %s", c.args, got, c.want)
		}
	}
}

// TestClientKeys: client.toml(5) is made from the comments of this type, and
// tells of nothing else.
func TestClientKeys(t *testing.T) {
	var keys []string
	for f := range reflect.TypeFor[clientSettings]().Fields() {
		keys = append(keys, f.Tag.Get("toml"))
	}
	if diff := cmp.Diff([]string{"core"}, keys); diff != "" {
		t.Errorf("say in packaging/man/pages/client.toml.5.md what is new (-want +got):\n%s", diff)
	}
}
