package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// terminals are where pseudo terminals are.
const terminals = "/dev/pts"

// tell writes a message to every terminal of a person, as wall(1) does. One
// that does not take it at once is passed over; a session without a terminal
// learns of it by what is refused.
func (s *Service) tell(p *person, message string) {
	entries, err := os.ReadDir(terminals)
	if err != nil {
		return
	}
	text := fmt.Sprintf("\r\n\a*** XtreemOS on %s, %s ***\r\n%s\r\n\r\n", s.cfg.Node, time.Now().Format("15:04"), printable(message))
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		// Whose it is is asked of what was opened.
		fd, err := unix.Open(filepath.Join(terminals, e.Name()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Uid == p.uid {
			unix.Write(fd, []byte(text))
		}
		unix.Close(fd)
	}
}

// printable takes control characters, but those of line ends, out of what is
// written to a terminal: a reason is an administrator's words.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\r' && r != '\n' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
