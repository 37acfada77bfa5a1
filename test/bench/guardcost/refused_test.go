package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each act is tried on what another process really has: where nothing refuses it, it
// works, and a worker that was told that it is refused says that nothing does.
func TestAimedActsWorkWhereNothingRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, "-stand")
	cmd.Dir, cmd.Stderr = t.TempDir(), os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var m mark
	if err := json.NewDecoder(out).Decode(&m); err != nil {
		t.Fatal(err)
	}
	m.File, m.Program = filepath.Join(cmd.Dir, m.File), filepath.Join(cmd.Dir, m.Program)
	for _, asRoot := range []bool{true, false} {
		acts, err := m.acts(asRoot)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range acts {
			for range 3 {
				if err := a.do(); err != nil {
					t.Errorf("%s: %v", a.name, err)
				}
			}
			if err := (act{do: a.do}).must(true); err == nil || !strings.Contains(err.Error(), "nothing refuses") {
				t.Errorf("%s works, and is taken for refused: %v", a.name, err)
			}
		}
	}
}

func TestRefusedIsByPermission(t *testing.T) {
	for err, refused := range map[error]bool{unix.EACCES: true, unix.EPERM: true, unix.ENOENT: false, unix.ECONNREFUSED: false} {
		a := act{do: func() error { return err }}
		if got := a.must(true); (got == nil) != refused {
			t.Errorf("%v where it shall be refused: %v", err, got)
		}
		if got := a.must(false); got != err {
			t.Errorf("%v where it shall work: %v", err, got)
		}
	}
}
