package main

import (
	"os"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/machine"
)

// setCore writes core = "ADDRESS" into a daemon's configuration, in place of
// what it says there, and leaves all other lines as the administrator wrote
// them.
func setCore(path, core string) error {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	line := `core = "` + core + `"`
	var out []string
	done := false
	for l := range strings.Lines(string(old)) {
		l = strings.TrimSuffix(l, "\n")
		key, _, isKey := strings.Cut(strings.TrimSpace(l), "=")
		if isTable := strings.HasPrefix(strings.TrimSpace(l), "["); isTable && !done {
			out, done = append(out, line), true
		}
		if isKey && strings.TrimSpace(key) == "core" && !done {
			l, done = line, true
		}
		out = append(out, l)
	}
	if !done {
		out = append(out, line)
	}
	text := strings.Join(out, "\n") + "\n"
	var any map[string]any
	if err := toml.Unmarshal([]byte(text), &any); err != nil {
		return xos.Errorf(xos.Invalid, "%s is no TOML: %w", path, err).WithHint("mend the file, then repeat")
	}
	return machine.ReplaceFile(path, []byte(text), 0o644)
}

// owner gives the ids that a file belongs to.
func owner(info os.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}
