package main

import (
	"strings"
	"testing"
)

func TestLoginsFigure(t *testing.T) {
	line := "    logins_test.go:120: figure "
	f, err := loginsFigure("=== RUN   TestRootLogins\n" + line + "42.7 10 5 415.7 749.3\n" + line + "50 9 6 400 700\nPASS\n" + line + "40 11 5 420 800\n")
	if err != nil || f.Value != 42.7 || f.Rounds != 3 || f.Min != 40 || f.Max != 50 || !strings.Contains(f.Note, "have it for 133 a second") {
		t.Errorf("%+v, %v", f, err)
	}
	for _, out := range []string{"", "PASS\n", line + "1 2 3\n", line + "1 2 3 4 x\n", line + "0 1 1 1 1\n"} {
		if f, err := loginsFigure(out); err == nil {
			t.Errorf("%q gives %+v", out, f)
		}
	}
}
