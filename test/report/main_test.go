package main

import (
	"bytes"
	"strings"
	"testing"
)

// says is a command that prints the end of one test.
func says(action, test string) []string {
	return []string{"printf", `{"Action":"output","Package":"p","Test":"` + test + `","Output":"words of ` + test + `"}\n{"Action":"` + action + `","Package":"p","Test":"` + test + `"}\n`}
}

// TestRuns: runs are told one after the other, and all count.
func TestRuns(t *testing.T) {
	var args []string
	for _, part := range [][]string{says("fail", "First"), {"second"}, says("pass", "Second"), {"third"}, says("fail", "Third"), {"fourth"}, {"false"}} {
		args = append(append(args, "--"), part...)
	}
	var out bytes.Buffer
	r := newResults(&out)
	for _, run := range split(args) {
		r.run(run)
	}
	if r.passed != 1 || r.failed != 2 || !r.bad {
		t.Errorf("%d passed, %d failed, bad %v", r.passed, r.failed, r.bad)
	}
	at := 0
	for _, want := range []string{"words of First", "== second", "== third", "words of Third", "== fourth", "report: false: exit status 1"} {
		i := strings.Index(out.String()[at:], want)
		if i < 0 {
			t.Fatalf("%q is not where it should be in\n%s", want, out.String())
		}
		at += i
	}
	if strings.Contains(out.String(), "words of Second") {
		t.Error("what passes is told whole")
	}
}
