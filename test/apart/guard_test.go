package apart

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// measure is one of "xos guard status".
type measure struct {
	Name string
	Have bool
	Why  string
}

// TestRootGuardHasWhatThePageSays: the table of docs/nodeguard.md says for each
// kernel which measures work on it; what a machine with that kernel says of
// itself is the same, and each that it has holds when it is fired.
func TestRootGuardHasWhatThePageSays(t *testing.T) {
	ctx := needGrid(t)
	release := on1(ctx, t, "root", "uname -r")
	var status struct {
		Level    string
		Measures []measure
	}
	if err := json.Unmarshal([]byte(on1(ctx, t, "root", "xos guard status --json")), &status); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/nodeguard.md")
	if err != nil {
		t.Fatal(err)
	}
	want := kernelTable(t, string(page), release)
	if want == nil {
		t.Fatalf("the table of docs/nodeguard.md has no column for kernel %s: add what it has:\n%+v", release, status)
	}
	if status.Level != want["level"] {
		t.Errorf("level %s on %s, the page says %s", status.Level, release, want["level"])
	}
	for _, m := range status.Measures {
		says, known := want[m.Name]
		if !known {
			t.Errorf("the page does not name %q", m.Name)
		} else if have := says == "yes"; have != m.Have {
			t.Errorf("%s on %s: have %v (%s), the page says %s", m.Name, release, m.Have, m.Why, says)
		}
		if !m.Have && m.Why == "" {
			t.Errorf("%s is missing on %s, and the guard does not say why", m.Name, release)
		}
		delete(want, m.Name)
	}
	delete(want, "level")
	for name, says := range want {
		if says == "–" { // not told where what it is part of is missing
			continue
		}
		t.Errorf("the page names %q, and the guard does not", name)
	}
	on1(ctx, t, "root", "xos guard test") // its status is 1 if one does not hold
}

// kernelTable reads the column of a kernel, "6.12" of its release, from the table
// whose first heading is "measure"; nil if there is none.
func kernelTable(t *testing.T, page, release string) map[string]string {
	t.Helper()
	var column int
	var table map[string]string
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		switch {
		case len(cells) > 2 && cells[0] == "measure":
			for i, heading := range cells {
				version, _, _ := strings.Cut(heading, " ")
				if i > 0 && (release == version || strings.HasPrefix(release, version+".")) {
					column, table = i, map[string]string{}
				}
			}
		case table != nil && len(cells) <= column:
			return table
		case table != nil && !strings.HasPrefix(cells[0], "-"):
			for name := range strings.SplitSeq(cells[0], ", ") {
				table[strings.Trim(name, "`")] = cells[column]
			}
		}
	}
	return table
}
