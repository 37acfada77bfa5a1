package nats

import (
	"strings"

	"github.com/xtreemos/xos"
)

// The subjects on the wire; see the package comment.
const (
	messageSpace = "m" // m.SENDER.SUBJECT
	inboxSpace   = "i" // i.REQUESTER.CONNECTION.REQUEST, and .RESPONDER of a reply
)

// maxName and maxSubject bound what a peer can make us keep.
const (
	maxName    = 128
	maxSubject = 512
)

// escapeName makes one word of a name: all but ASCII letters, digits, '-' and
// '_' become %XX.
func escapeName(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// unescapeName is the exact inverse of escapeName: a word that escapeName
// does not make is refused, so that no two words give one name.
func unescapeName(word string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] != '%' {
			b.WriteByte(word[i])
			continue
		}
		if i+2 >= len(word) {
			return "", false
		}
		hi, lo := nibble(word[i+1]), nibble(word[i+2])
		if hi > 15 || lo > 15 {
			return "", false
		}
		b.WriteByte(hi<<4 | lo)
		i += 2
	}
	name := b.String()
	return name, len(name) > 0 && len(name) <= maxName && escapeName(name) == word
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return xos.Errorf(xos.Invalid, "%.80q cannot be a name on the bus: want 1 to %d bytes", name, maxName)
	}
	return nil
}

// checkSubject accepts words of printable ASCII joined by dots. Wildcards are
// for patterns only.
func checkSubject(s string, pattern bool) error {
	bad := func() error { return xos.Errorf(xos.Invalid, "%.80q is no subject", s) }
	if len(s) > maxSubject {
		return bad()
	}
	words := strings.Split(s, ".")
	for i, w := range words {
		switch {
		case w == "":
			return bad()
		case w == "*" || w == ">" && i == len(words)-1:
			if !pattern {
				return bad()
			}
			continue
		}
		for j := 0; j < len(w); j++ {
			if c := w[j]; c <= ' ' || c >= 0x7f || c == '*' || c == '>' {
				return bad()
			}
		}
	}
	return nil
}

func sentBy(name, subject string) string {
	return messageSpace + "." + escapeName(name) + "." + subject
}

func sentByAnyone(pattern string) string { return messageSpace + ".*." + pattern }

// parseMessage takes a message's wire subject apart.
func parseMessage(wire string) (from, subject string, ok bool) {
	rest, ok := strings.CutPrefix(wire, messageSpace+".")
	if !ok {
		return "", "", false
	}
	word, subject, ok := strings.Cut(rest, ".")
	if !ok {
		return "", "", false
	}
	from, ok = unescapeName(word)
	return from, subject, ok && checkSubject(subject, false) == nil
}

// replyBelongs reports whether a reply address is an inbox of the requester
// from: nobody may have us write to someone else's.
func replyBelongs(reply, from string) bool {
	words := strings.Split(reply, ".")
	return len(words) == 4 && words[0] == inboxSpace && words[1] == escapeName(from) &&
		checkSubject(reply, false) == nil
}

// parseReply takes apart what arrived in the inbox whose prefix (with its last
// dot) is given. from is "" for the server's own word that nobody listens,
// which no connection may send.
func parseReply(wire, inbox string) (request, from string, ok bool) {
	rest, ok := strings.CutPrefix(wire, inbox)
	if !ok {
		return "", "", false
	}
	request, word, answered := strings.Cut(rest, ".")
	if !answered {
		return request, "", true
	}
	from, ok = unescapeName(word)
	return request, from, ok
}
