// Command report runs "go test -json …", shows failures in full and one line
// for each package, lists what was skipped and why, and closes with
// "N passed, N failed, N skipped". Its exit status is that of the tests.
//
// Runs follow one another.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is what go test -json prints (see "go doc test2json").
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
}

// results are the outcomes so far.
type results struct {
	out            io.Writer
	passed, failed int
	skipped        []string // "test: reason"
	bad            bool     // a run ended otherwise than well
	output         map[string]*strings.Builder
}

func main() {
	runs := split(os.Args[1:])
	if len(runs) == 0 {
		fmt.Fprintln(os.Stderr, "usage: report -- go test -json … [-- LABEL -- go test -json …]…")
		os.Exit(64)
	}
	all := newResults(os.Stdout)
	for _, run := range runs {
		all.run(run)
	}
	all.summary()
	if all.bad || all.failed > 0 {
		os.Exit(1)
	}
}

// command is one run of go test; its label is printed before it.
type command struct {
	label string
	argv  []string
}

// split reads "-- ARGV… [-- LABEL -- ARGV…]…".
func split(args []string) []command {
	var parts [][]string
	for _, a := range args {
		if a == "--" {
			parts = append(parts, nil)
		} else if len(parts) > 0 {
			parts[len(parts)-1] = append(parts[len(parts)-1], a)
		}
	}
	var runs []command
	for i := 0; i < len(parts); i++ {
		c := command{argv: parts[i]}
		if i > 0 && len(parts[i]) == 1 && i+1 < len(parts) {
			c.label = parts[i][0]
			i++
			c.argv = parts[i]
		}
		if len(c.argv) > 0 {
			runs = append(runs, c)
		}
	}
	return runs
}

func newResults(out io.Writer) *results {
	return &results{out: out, output: map[string]*strings.Builder{}}
}

// run runs go test and takes in its events.
func (r *results) run(c command) {
	if c.label != "" {
		fmt.Fprintf(r.out, "\n== %s\n", c.label)
	}
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		r.read(out)
		err = cmd.Wait()
	}
	if err != nil {
		fmt.Fprintf(r.out, "report: %s: %v\n", strings.Join(c.argv[:min(3, len(c.argv))], " "), err)
		r.bad = true
	}
}

func (r *results) read(in io.Reader) {
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var e event
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, scan.Text()) // not an event: a tool's own words
			continue
		}
		r.take(e)
	}
	if err := scan.Err(); err != nil {
		fmt.Fprintln(r.out, "report: reading the tests' output:", err)
		r.failed++
	}
}

func (r *results) take(e event) {
	key := e.Package + " " + e.Test
	buffer := r.output[key]
	if buffer == nil {
		buffer = &strings.Builder{}
		r.output[key] = buffer
	}
	switch e.Action {
	case "output":
		buffer.WriteString(e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		r.ended(e, buffer.String())
		delete(r.output, key)
	}
}

func (r *results) ended(e event, output string) {
	if e.Test == "" {
		if e.Action == "fail" {
			fmt.Fprint(r.out, output)
			r.failed++ // a crash, a build failure or a failed test below
		}
		if e.Action != "skip" { // a package without tests
			fmt.Fprintf(r.out, "%-4s %6.1f s  %s\n", e.Action, e.Elapsed, e.Package)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Fprint(r.out, output)
	case "skip":
		r.skipped = append(r.skipped, e.Package+" "+e.Test+": "+reason(output))
	}
}

// reason picks a skipped test's own words from its output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if _, words, ok := strings.Cut(line, "SKIPPED "); ok {
			return strings.TrimSpace(words)
		}
	}
	return strings.TrimSpace(output)
}

func (r *results) summary() {
	slices.Sort(r.skipped)
	if len(r.skipped) > 0 {
		fmt.Fprintln(r.out, "\nskipped:")
		for _, s := range r.skipped {
			fmt.Fprintln(r.out, "  "+s)
		}
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
}
