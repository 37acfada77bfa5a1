package pamxos_test

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	pamxos "github.com/xtreemos/xos/pam_xos"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// testFrames: no answer that is not well-formed lets anyone in, sets anything
// or breaks the host; what is shown is only text.
func testFrames(t *testing.T, h host) {
	F := wiretest.Fields
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		name, op string
		status   uint32
		fields   []byte
		want     string
	}{
		{"yes and more", "acct_mgmt", 0, F("", 1), denied},
		{"yes without a message", "acct_mgmt", 0, nil, denied},
		{"yes with a NUL", "acct_mgmt", 0, F("a\x00b"), denied},
		{"yes that takes the terminal", "acct_mgmt", 0, F("\x1b[2J\rok\x7f %s%n"), "?[2J?ok? %s%n\n" + accountOK},
		{"yes that never ends", "acct_mgmt", 0, F(long), long[:512] + "\n" + accountOK},
		{"no that takes the terminal", "acct_mgmt", 2, F("\x1b]0;x\x07no"), "?]0;x?no\n" + denied},
		{"no without a reason", "acct_mgmt", 2, F(""), denied},
		{"no and more", "acct_mgmt", 2, F("no", 1), unavailable},
		{"no without fields", "acct_mgmt", 2, nil, unavailable},
		{"unknown status", "acct_mgmt", 77, F("no"), "no\n" + denied},
		{"negative status", "acct_mgmt", 0xffffffff, F("no"), "no\n" + denied},

		{"open without fields", "open_session", 0, nil, sessionErr},
		{"no id", "open_session", 0, F("", []string{}, "", 0), sessionErr},
		{"long id", "open_session", 0, F(strings.Repeat("s", 257), []string{}, "", 0), sessionErr},
		{"no setting", "open_session", 0, F("s1", []string{"A=b", "A"}, "", 0), sessionErr},
		{"no name", "open_session", 0, F("s1", []string{"=b"}, "", 0), sessionErr},
		{"many settings", "open_session", 0, F("s1", slices.Repeat([]string{"A=b"}, 65), "", 0), sessionErr},
		{"promised settings", "open_session", 0, F("s1", 3, "A=b"), sessionErr},
		{"a descriptor that is not there", "open_session", 0, F("s1", []string{}, "", 1), sessionErr},
		{"two descriptors", "open_session", 0, F("s1", []string{}, "", 2), sessionErr},
		{"and more", "open_session", 0, F("s1", []string{}, "", 0, 0), sessionErr},
		{"message", "open_session", 0, F("s1", []string{}, "a\tb\x1b\n", 0), "a?b?\n\n" + opened},
	} {
		t.Run(c.name, func(t *testing.T) {
			stop := wiretest.Listen(t, h.Socket(), answering(c.status, c.fields))
			defer stop()
			h.log.Entries(t)
			if diff := cmp.Diff(c.want, h.pam(t, "permits", "alice@physics", c.op)); diff != "" {
				t.Error(diff)
			}
			if text := strings.Join(h.log.Entries(t), ""); strings.ContainsAny(text, "\x1b\n") || !strings.Contains(c.want, "\n") && text == "" && c.name != "no without a reason" {
				t.Errorf("it logged %q", text)
			}
		})
	}
	t.Run("a descriptor that was not promised", func(t *testing.T) {
		wiretest.Listen(t, h.Socket(), func(c *net.UnixConn) {
			wiretest.ReadRequest(c)
			c.WriteMsgUnix(wiretest.Message(9, 0, F("s1", []string{}, "", 0)), unix.UnixRights(0), nil)
		})
		if got := h.pam(t, "permits", "alice@physics", "open_session"); got != sessionErr {
			t.Error(got)
		}
	})
}

// testDamaged sends every beginning of a good answer, and it with each byte
// changed.
func testDamaged(t *testing.T, h host) {
	good := wiretest.Message(9, 0, wiretest.Fields("s1", []string{"A=b"}, "hello", 0))
	frames := [][]byte{good}
	for i := range good {
		frames = append(frames, good[:i])
		for _, flip := range []byte{1, 0x80, 0xff} {
			f := slices.Clone(good)
			f[i] ^= flip
			frames = append(frames, f)
		}
	}
	var next atomic.Int32
	wiretest.Listen(t, h.Socket(), func(c *net.UnixConn) {
		wiretest.ReadRequest(c)
		if i := int(next.Add(1)) - 1; i < len(frames) {
			c.Write(frames[i])
		}
	})
	out, err := h.Command("sh", "-c", `i=0; while [ $i -lt $0 ]; do pamtester permits alice@physics open_session >/dev/null 2>&1; echo $?; i=$((i + 1)); done`,
		strconv.Itoa(len(frames))).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != len(frames) || lines[0] != "0" {
		t.Fatalf("%d frames, %d answers, the first is %s", len(frames), len(lines), lines[0])
	}
	for i, f := range frames {
		want := "1"
		if len(f) == len(good) && string(f[:16]) == string(good[:16]) && wellFormed(f[16:], false) {
			want = "0"
		}
		if lines[i] != want {
			t.Errorf("%q: exit %s, want %s", f, lines[i], want)
		}
	}
}

var errShort = errors.New("too short")

// wellFormed reads the reply to an opened session as its definition says, in
// other words than the module.
func wellFormed(b []byte, descriptor bool) bool {
	var err error
	u32 := func() (n uint32) {
		if len(b) < 4 {
			err, b = errShort, nil
			return 0
		}
		n, b = binary.LittleEndian.Uint32(b), b[4:]
		return n
	}
	str := func() string {
		n := u32()
		if uint64(n) > uint64(len(b)) {
			err, b = errShort, nil
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	id := str()
	n := u32()
	if n > 64 {
		return false
	}
	texts := []string{id}
	for range n {
		s := str()
		if strings.Index(s, "=") < 1 {
			return false
		}
		texts = append(texts, s)
	}
	texts = append(texts, str())
	fds := u32()
	return err == nil && len(b) == 0 && id != "" && len(id) <= 256 && !strings.Contains(strings.Join(texts, ""), "\x00") &&
		(fds == 1 && descriptor || fds == 0 && !descriptor)
}

func FuzzOpenReply(f *testing.F) {
	f.Add(wiretest.Fields("s1", []string{"A=b", "C="}, "hello", 0), false)
	f.Add(wiretest.Fields("s1", []string{}, "", 1), true)
	f.Add(wiretest.Fields("s1", []string{"=b"}, "", 0), false)
	f.Add(wiretest.Fields("s1", 1<<30, "", 0), false)
	f.Add(wiretest.Fields("s\x001", []string{}, "", 0), false)
	f.Add([]byte{}, false)
	// The corpus that the module is fuzzed from in C; a header comes first.
	corpus, err := filepath.Glob("../session/wire/testdata/reply/*")
	if err != nil || len(corpus) == 0 {
		f.Fatalf("there is no corpus: %v", err)
	}
	for _, path := range corpus {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[min(16, len(b)):], false)
		f.Add(b[min(16, len(b)):], true)
	}
	f.Fuzz(func(t *testing.T, fields []byte, descriptor bool) {
		if got, want := pamxos.ValidOpenReply(fields, descriptor), wellFormed(fields, descriptor); got != want {
			t.Fatalf("taken: %v, want %v", got, want)
		}
	})
}
