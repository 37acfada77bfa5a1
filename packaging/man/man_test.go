package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const tree = "../.."

// TestPages writes all pages and reads them as man(1) does.
func TestPages(t *testing.T) {
	t.Chdir(tree)
	dir := t.TempDir()
	if err := write(".", dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		data, err := os.ReadFile(filepath.Join(dir, "man"+p.Section, p.Name+"."+p.Section))
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		for _, want := range []string{".TH", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH SEE ALSO"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s", p.Name, want)
			}
		}
		if strings.Contains(text, "<no value>") {
			t.Errorf("%s has an empty place", p.Name)
		}
	}
}

// TestProgramsAgree asks the programs themselves: the flags of a page are those
// that the program lists, and each key of a page is one that it knows.
func TestProgramsAgree(t *testing.T) {
	zero := map[string]string{"string": `""`, "duration": `"1m"`, "integer": "0", "boolean": "false", "list of strings": "[]", "table of integers": "{}"}
	for _, p := range pages {
		if p.Section != "8" {
			continue // these are of the same programs; cmd/xos tests its own file
		}
		s, err := read(tree, p.program, p.config)
		if err != nil {
			t.Fatal(err)
		}
		exe := built(t, p.program)
		flags := regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(run(t, exe, "-help"), -1)
		if len(flags) != len(s.flags) {
			t.Errorf("%s has the flags %v, its page %v", p.program, flags, s.flags)
		}
		for _, m := range flags {
			if !strings.Contains(s.flagList(), "**-"+m[1]+"**") {
				t.Errorf("%s has a flag -%s that its page lacks", p.program, m[1])
			}
		}
		if p.config == "" {
			continue
		}
		config := ""
		for _, k := range s.keys {
			value := k.value
			if value == "" {
				value = zero[k.kind]
			}
			config += k.name + " = " + value + "\n"
		}
		if out := check(t, exe, config); strings.Contains(out, "does not know") || strings.Contains(out, "reading") {
			t.Errorf("%s refuses\n%s\n%s", p.program, config, out)
		}
		if out := check(t, exe, "no_such_key = 1"); !strings.Contains(out, "does not know") {
			t.Errorf("%s takes any key: %q", p.program, out)
		}
	}
}

// check has a program look at a configuration, and gives what it says.
func check(t *testing.T, exe, config string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(config+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, exe, "-check-config", "-config", path)
}

// built gives a program of the tree. go run keeps what it linked, go build would
// link anew each time.
func built(t *testing.T, program string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), program)
	cmd := exec.Command("go", "run", "-exec", "cp", "./cmd/"+program, to)
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", program, err, out)
	}
	return to
}

func run(t *testing.T, exe string, args ...string) string {
	t.Helper()
	out, err := exec.Command(exe, args...).CombinedOutput()
	var refused *exec.ExitError
	if err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	return string(out)
}

func TestValues(t *testing.T) {
	for d, want := range map[time.Duration]string{12 * time.Hour: "12h", time.Minute: "1m", 90 * time.Second: "1m30s", 90 * time.Minute: "1h30m"} {
		if got := short(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
	s, err := read(tree, "xos-node", "config")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, k := range s.keys {
		got[k.name] = k.value
	}
	for name, want := range map[string]string{"listen": `":7444"`, "linger": `"1m"`, "vos": `["*"]`, "trust": `"/etc/xos/trust"`, "policy": ""} {
		if got[name] != want {
			t.Errorf("the default of %s is %s, want %s", name, got[name], want)
		}
	}
}
