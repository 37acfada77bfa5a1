package xvoms

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/xtreemos/xos"
)

func stringsOf[S ~string](names []S) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = string(n)
	}
	return out
}

func named[S ~string](names []string) []S {
	out := make([]S, len(names))
	for i, n := range names {
		out[i] = S(n)
	}
	return out
}

func uitoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// goodReason keeps an administrator's words fit for a terminal and a log.
func goodReason(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) > 200 || !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return "", xos.Errorf(xos.Invalid, "a reason must be at most 200 printable characters")
	}
	return s, nil
}
