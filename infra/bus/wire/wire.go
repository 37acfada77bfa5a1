// Package wire is how the bus's subjects look in NATS, so that a message's
// sender shows and cannot be forged.
//
// A NATS message does not say who sent it. So the sender's name is a word of
// the subject on the wire, and the server lets a connection publish only under
// its own name. For the connection named N:
//
//	bus                     on the wire                  permission
//	Publish S               publish   m.N.S              m.N.(pub patterns)
//	Subscribe S             subscribe m.*.S              m.*.(sub patterns)
//	own inbox               subscribe i.N.CONN.>         i.N.>
//	request, reply address  i.N.CONN.REQ
//	reply to it             publish   i.X.CONN.REQ.N     i.*.*.*.N
//
// The receiver reads Message.From out of the subject, and can rely on it as on
// the server, which is the only one to read certificates. A reply address that
// is not an inbox of the message's own sender is ignored: nobody can have
// another write where it may not itself. CONN is random, so inboxes cannot be
// guessed, and nobody may listen at another name's. Names are escaped into one
// word.
package wire

import (
	"strings"

	"github.com/xtreemos/xos"
)

const (
	messageSpace = "m" // m.SENDER.SUBJECT
	inboxSpace   = "i" // i.REQUESTER.CONNECTION.REQUEST, and .RESPONDER of a reply
)

// MaxName and MaxSubject bound, in bytes, what a peer can make us keep.
const (
	MaxName    = 128
	MaxSubject = 512
)

// Escape makes one word of a name: all but ASCII letters, digits, '-' and
// '_' become %XX.
func Escape(name string) string {
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

// Unescape is the exact inverse of Escape: a word that Escape
// does not make is refused, so that no two words give one name.
func Unescape(word string) (string, bool) {
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
	return name, len(name) > 0 && len(name) <= MaxName && Escape(name) == word
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

// CheckName tells whether somebody may be called so.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return xos.Errorf(xos.Invalid, "%.80q cannot be a name on the bus: want 1 to %d bytes", name, MaxName)
	}
	return nil
}

// Check accepts words of printable ASCII joined by dots. Wildcards are
// for patterns only.
func Check(s string, pattern bool) error {
	bad := func() error { return xos.Errorf(xos.Invalid, "%.80q is no subject", s) }
	if len(s) > MaxSubject {
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

// Inbox is the prefix, with its last dot, of a connection's reply addresses.
func Inbox(name, connection string) string {
	return inboxSpace + "." + Escape(name) + "." + connection + "."
}

// MayPublish gives the permissions for the subjects in patterns, and to answer
// requests. It is never empty: to NATS an empty list would mean everything.
func MayPublish(name string, patterns []string) []string {
	all := []string{inboxSpace + ".*.*.*." + Escape(name)}
	for _, p := range patterns {
		all = append(all, From(name, p))
	}
	return all
}

// MaySubscribe gives the permissions for the subjects in patterns, and to hear
// replies; never empty either.
func MaySubscribe(name string, patterns []string) []string {
	all := []string{inboxSpace + "." + Escape(name) + ".>"}
	for _, p := range patterns {
		all = append(all, FromAnyone(p))
	}
	return all
}

// Answer is where name replies to a request.
func Answer(reply, name string) string { return reply + "." + Escape(name) }

// From is where name publishes.
func From(name, subject string) string {
	return messageSpace + "." + Escape(name) + "." + subject
}

// FromAnyone is where a pattern is subscribed.
func FromAnyone(pattern string) string { return messageSpace + ".*." + pattern }

// ParseMessage takes a message's wire subject apart.
func ParseMessage(wire string) (from, subject string, ok bool) {
	rest, ok := strings.CutPrefix(wire, messageSpace+".")
	if !ok {
		return "", "", false
	}
	word, subject, ok := strings.Cut(rest, ".")
	if !ok {
		return "", "", false
	}
	from, ok = Unescape(word)
	return from, subject, ok && Check(subject, false) == nil
}

// IsInbox reports whether a reply address is an inbox of the requester
// from: nobody may have us write to someone else's.
func IsInbox(reply, from string) bool {
	words := strings.Split(reply, ".")
	return len(words) == 4 && words[0] == inboxSpace && words[1] == Escape(from) &&
		Check(reply, false) == nil
}

// ParseReply takes apart what arrived in the inbox whose prefix (with its last
// dot) is given. from is "" for the server's own word that nobody listens,
// which no connection may send.
func ParseReply(wire, inbox string) (request, from string, ok bool) {
	rest, ok := strings.CutPrefix(wire, inbox)
	if !ok {
		return "", "", false
	}
	request, word, answered := strings.Cut(rest, ".")
	if !answered {
		return request, "", true
	}
	from, ok = Unescape(word)
	return request, from, ok
}
