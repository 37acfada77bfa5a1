package xos_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
)

func TestParseAccount(t *testing.T) {
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{"alice@physics", true},
		{"a@b", true},
		{"a1._-x@b-2", true},
		{"alice", false},
		{"@physics", false},
		{"alice@", false},
		{"root@physics", false},
		{"alice@phy@sics", false},
		{"Alice@physics", false},
		{"alice:x@physics", false},
		{"alice\n@physics", false},
		{"alice\x00@physics", false},
		{"älice@physics", false},
		{"../x@physics", false},
		{"alice@physics.", false},
		{"alice-@physics", false},
		{strings.Repeat("a", 32) + "@physics", true},
		{strings.Repeat("a", 33) + "@physics", false},
		{strings.Repeat("a", 200) + "@physics", false},
	} {
		a, err := xos.ParseAccount(tc.in)
		if (err == nil) != tc.ok {
			t.Errorf("%q: %v", tc.in, err)
		}
		if err == nil && a.String() != tc.in {
			t.Errorf("%q came back as %q", tc.in, a)
		}
		if err != nil && !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: kind %v", tc.in, xos.KindOf(err))
		}
	}
}

func FuzzParseAccount(f *testing.F) {
	f.Add("alice@physics")
	f.Add("a:b@c\n")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := xos.ParseAccount(s)
		if err != nil {
			return
		}
		if a.String() != s || strings.ContainsAny(s, ":/\n\x00 ") || len(s) > 2*xos.MaxName+1 {
			t.Fatalf("accepted %q as %v", s, a)
		}
	})
}

func TestErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("disk broke")
	err := xos.Errorf(xos.Unavailable, "reading: %w", cause).WithHint("try later")
	if !errors.Is(err, cause) || err.Error() != "reading: disk broke (try later)" {
		t.Errorf("%v", err)
	}
}
