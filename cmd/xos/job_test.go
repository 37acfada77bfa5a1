package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func TestParseKill(t *testing.T) {
	for _, tt := range []struct {
		args []string
		sig  int
		ids  []string
		bad  bool
	}{
		{args: []string{"a"}, sig: 15, ids: []string{"a"}},
		{args: []string{"-9", "a", "b"}, sig: 9, ids: []string{"a", "b"}},
		{args: []string{"-STOP", "a"}, sig: 19, ids: []string{"a"}},
		{args: []string{"-s", "sigcont", "--", "a"}, sig: 18, ids: []string{"a"}},
		{args: []string{"-s"}, bad: true},
		{args: []string{"-65", "a"}, bad: true},
		{args: []string{"-FOO", "a"}, bad: true},
		{args: []string{"-9"}, bad: true},
		{bad: true},
	} {
		sig, ids, err := parseKill(tt.args)
		if tt.bad {
			if !xos.Is(err, xos.Invalid) {
				t.Errorf("%q: %v", tt.args, err)
			}
		} else if err != nil || sig != tt.sig || !cmp.Equal(ids, tt.ids) {
			t.Errorf("%q: %d, %q, %v", tt.args, sig, ids, err)
		}
	}
}

func TestParseRequirement(t *testing.T) {
	n := func(f float64) *float64 { return &f }
	for s, want := range map[string]*xosv1.Condition{
		"cpus>=4":             {Attribute: "cpus", Min: n(4)},
		"load<=1.5":           {Attribute: "load", Max: n(1.5)},
		"memory_free>=8GiB":   {Attribute: "memory_free", Min: n(8 << 30)},
		"jobs=0":              {Attribute: "jobs", Min: n(0), Max: n(0)},
		"os=debian|ubuntu":    {Attribute: "os", Texts: []string{"debian", "ubuntu"}},
		"os_version=13":       {Attribute: "os_version", Texts: []string{"13"}},
		"cpus":                nil,
		"cpus>=many":          nil,
		"CPUS>=4":             nil,
		"memory>=-1":          nil,
		"memory>=1000000000P": nil,
	} {
		got, err := parseRequirement(s)
		if want == nil {
			if !xos.Is(err, xos.Invalid) {
				t.Errorf("%s: %v, %v", s, got, err)
			}
		} else if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || err != nil {
			t.Errorf("%s: %v %s", s, err, d)
		}
	}
}

func TestEnvironmentPassedOn(t *testing.T) {
	got := lastWins(append(passedOn([]string{"HOME=/root", "LANG=C", "XOS_SHADOW=3", "SSH_AUTH_SOCK=x", "HOMEWARD=1", "PATH=/bin"}), "LANG=de"))
	if d := cmp.Diff([]string{"LANG=de", "HOMEWARD=1", "PATH=/bin"}, got); d != "" {
		t.Error(d)
	}
}
