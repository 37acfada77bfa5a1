package wire

import (
	"strings"
	"testing"
)

// FuzzParse: whatever the wire carries, the parsers neither panic nor give one
// sender two spellings.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"m.alice.news", "m.alice%2Elab.a.b", "m.%.x", "m.%2e.x", "m..x", "i.a.b.c", "i.a.b.c.d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, wire string) {
		if from, subject, ok := ParseMessage(wire); ok {
			if From(from, subject) != wire || CheckName(from) != nil || Check(subject, false) != nil {
				t.Errorf("%q is taken for %q from %q", wire, subject, from)
			}
			if strings.Contains(Escape(from), ".") {
				t.Errorf("the name %q is more than one word", from)
			}
			if IsInbox(wire, from) {
				t.Errorf("%q is taken for an inbox", wire)
			}
		}
		if request, from, ok := ParseReply(wire, "i.me.c."); ok && strings.Contains(request, ".") {
			t.Errorf("%q is taken for request %q from %q", wire, request, from)
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"alice", "a.b", "*", ">", "%2E", "ä\x00 \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		word := Escape(name)
		back, ok := Unescape(word)
		if valid := CheckName(name) == nil; ok != valid || ok && back != name {
			t.Errorf("%q becomes %q becomes %q, %v", name, word, back, ok)
		}
		if name != "" && Check("m."+word, false) != nil && len(word) < MaxSubject-2 {
			t.Errorf("%q is no word", word)
		}
	})
}
