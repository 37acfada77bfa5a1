package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func TestSinceWhen(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "0s": now,
		"2026-11-25":                time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
		"2026-11-25 14:00:00":       time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC),
		"2026-11-25T14:00:00+02:00": time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
	} {
		if got, err := sinceWhen(text, now); err != nil || !got.AsTime().Equal(want) {
			t.Errorf("%q: %v, %v", text, got.AsTime(), err)
		}
	}
	if got, err := sinceWhen("", now); got != nil || err != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
	for _, text := range []string{"-5m", "yesterday", "2026-13-01", " ", "90"} {
		if _, err := sinceWhen(text, now); !xos.Is(err, xos.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAuditTable(t *testing.T) {
	var b strings.Builder
	printAudit(&b, &xosv1.ListAuditResponse{Before: 41, Records: []*xosv1.AuditRecord{
		{Seq: 41, Time: timestamppb.New(time.Unix(1e9, 0)), Actor: "10.0.0.1:5", Action: "issue", Subject: "ali\x1b[2Jce\n@ph\tysics", Reason: `wrong "user"`},
		{Seq: 42, Action: "/xos.v1.VOs/CreateVO", Actor: "root", Subject: "physik-für-alle", Allowed: true},
	}})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 4 || strings.ContainsAny(b.String(), "\x1b\t") {
		t.Fatalf("%q", b.String())
	}
	for i, want := range []string{"NUMBER", `ali\x1b[2Jce\n@ph\tysics`, "physik-für-alle", "--before 41"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d lacks %q: %q", i, want, lines[i])
		}
	}
	if !strings.Contains(lines[1], `refused  wrong "user"`) || !strings.Contains(lines[2], " CreateVO ") || !strings.Contains(lines[2], "allowed") {
		t.Errorf("%q", lines)
	}
}

func TestVerifyEndsWithAStatus(t *testing.T) {
	for _, flags := range [][]string{nil, {"--json"}} {
		for _, whole := range []bool{true, false} {
			root := newRootCommand()
			var out strings.Builder
			root.SetOut(&out)
			if err := root.ParseFlags(flags); err != nil {
				t.Fatal(err)
			}
			err := verdict(root, &xosv1.VerifyAuditResponse{Whole: whole, Seq: 6, Hash: "ab", Broken: 7, Reason: "is malformed"})
			var status exitError
			if whole != (err == nil) || !whole && (!errors.As(err, &status) || status != 1) {
				t.Errorf("%v, whole %v: %v", flags, whole, err)
			}
			if flags == nil && !strings.Contains(out.String(), "6:ab") || flags != nil && !strings.Contains(out.String(), `"broken"`) {
				t.Errorf("%v: %s", flags, out.String())
			}
		}
	}
}
