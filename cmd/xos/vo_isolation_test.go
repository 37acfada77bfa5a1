package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
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

func TestWhereIsShown(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	printWhere(&out, []*xosv1.IsolationAt{
		{Node: "node1", InForce: true, Heard: timestamppb.New(now)},
		{Node: "node2", Why: "an earlier one is in force", Heard: timestamppb.New(now)},
		{Node: "node3", Why: "not heard of", Heard: timestamppb.New(now.Add(-time.Hour))},
	})
	want := "in force on 1 of 3 machines that serve the VO\n  not on node2: an earlier one is in force\n  not on node3: not heard of since " + when(timestamppb.New(now.Add(-time.Hour))) + "\n"
	if out.String() != want {
		t.Errorf("%s, want %s", out.String(), want)
	}
}
