package main

import (
	"strings"
	"testing"

	"github.com/xtreemos/xos"
)

func TestCheckIsolation(t *testing.T) {
	check := func(text string, flags ...string) (string, error) {
		root := newRootCommand()
		var out strings.Builder
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetIn(strings.NewReader(text))
		root.SetArgs(append([]string{"vo", "isolation", "check", "-"}, flags...))
		err := root.Execute()
		return out.String(), err
	}
	text := "forbid = [\"setuid\"]\ndevices = [\"gpu\"]\n[share]\nnetwork = [\"chemistry\", \"biology\"]\n[ceilings]\nmemory = \"16G\"\n"
	for want, flags := range map[string][]string{"shares network with biology, chemistry, where": nil, "its own processes: setuid": nil, "classes gpu": nil, "to 16G memory": nil,
		`"network": [` + "\n" + `      "biology"`: {"--json"}} {
		if out, err := check(text, flags...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%q is not in %s (%v)", want, out, err)
		}
	}
	if out, err := check(""); err != nil || !strings.Contains(out, "shares nothing") {
		t.Errorf("of nothing: %s (%v)", out, err)
	}
	if _, err := check("[share]\nnetwork = [\"chemistry\"]\nkernel = [\"*\"]\n"); !xos.Is(err, xos.Invalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a bad one: %v", err)
	}
}
