package order

import (
	"path"
	"strings"
	"unicode"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// Bounds of a job.
const (
	maxName  = 64
	maxWords = 4096 // arguments, and variables
	maxBytes = 128 << 10
)

// limits are those a job may name, each with its greatest value.
var limits = map[string]int64{"memory": 1 << 50, "cpus": 1 << 20, "processes": 1 << 22, "seconds": 10 * 366 * 24 * 3600}

// CheckSpec refuses a job that no machine could run.
func CheckSpec(s *xosv1.JobSpec) error {
	if len(s.GetArgv()) == 0 || s.Argv[0] == "" {
		return xos.Errorf(xos.Invalid, "a job needs a command")
	}
	if len(s.Name) > maxName || strings.ContainsFunc(s.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return xos.Errorf(xos.Invalid, "%.80q is no name for a job: want at most %d printable characters", s.Name, maxName)
	}
	size := 0
	for what, words := range map[string][]string{"argument": s.Argv, "variable": s.Env} {
		if len(words) > maxWords {
			return xos.Errorf(xos.TooLarge, "more than %d %ss", maxWords, what)
		}
		for _, w := range words {
			size += len(w)
			if strings.ContainsRune(w, 0) {
				return xos.Errorf(xos.Invalid, "a %s holds a zero byte", what)
			}
		}
	}
	if size > maxBytes {
		return xos.Errorf(xos.TooLarge, "arguments and environment have %d bytes, more than %d", size, maxBytes).
			WithHint("put the data into a file in your home")
	}
	for _, e := range s.Env {
		if i := strings.IndexByte(e, '='); i <= 0 {
			return xos.Errorf(xos.Invalid, "%.80q is no variable: want NAME=value", e)
		}
	}
	if d := s.Directory; d != "" && (!path.IsAbs(d) || len(d) > 4096 || strings.ContainsRune(d, 0)) {
		return xos.Errorf(xos.Invalid, "%.80q is no absolute directory", d)
	}
	if s.Node != "" && !xos.ValidName(s.Node) {
		return xos.Errorf(xos.Invalid, "%.80q is no node", s.Node)
	}
	for name, n := range s.Limits {
		most, known := limits[name]
		if !known {
			return xos.Errorf(xos.NotSupported, "a limit of %.40q is not known", name).WithHint("there are memory, cpus, processes and seconds")
		}
		if n <= 0 || n > most {
			return xos.Errorf(xos.Invalid, "a limit of %d %s is out of range", n, name)
		}
	}
	return nil
}
