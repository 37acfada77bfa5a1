package wire

import (
	"bytes"
	"encoding/binary"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xtreemos/xos"
)

var update = flag.Bool("update", false, "write the pairs of testdata anew")

// readPair reads what the corpus has in one input: a snapshot's head, and after
// it the base that it names, if it names one.
func readPair(b []byte) (*SnapshotFile, error) {
	read := func(b []byte) (*SnapshotFile, error) {
		return readSnapshot(bytes.NewReader(b), int64(len(b)), "physics")
	}
	le := binary.LittleEndian
	if len(b) < snapBasedHeader || le.Uint32(b[8:]) != snapBased || int64(le.Uint32(b[12:])) >= int64(len(b)) {
		s, err := read(b)
		if err == nil && s.based != 0 {
			return nil, xos.Errorf(xos.Internal, "it has no base")
		}
		return s, err
	}
	n := le.Uint32(b[12:])
	s, err := read(b[:n])
	if err != nil {
		return nil, err
	}
	base, err := read(b[n:])
	if err != nil {
		return nil, err
	}
	return s, s.join(base)
}

// Who the pairs are about; the fuzzers ask for them.
const (
	aliceUID   = 1879050001
	bobUID     = 1879050002
	carolUID   = 1879050003
	physicsGID = 1900000000
	higgsGID   = 1900000001
)

type pairCase struct {
	based     uint64 // 0: 5, which is the base's generation
	head      func(*layout)
	base      func(*layout)
	baseVO    xos.VOName // "": physics
	baseBased uint64
	broken    bool
	// Who has the name and who the id, "": nobody.
	alice, aliceID, bob, bobID string
}

func one(l *layout, name string, id uint32, dir string) {
	l.user(&SnapshotUser{Passwd{name + "@physics", id, id, name, dir, "/bin/sh"}, []uint32{physicsGID}})
}

// both is what the bases have: alice, bob and the groups.
func both(l *layout) {
	one(l, "alice", aliceUID, "/base")
	one(l, "bob", bobUID, "/base")
	l.group(Group{"physics", physicsGID, []string{"alice@physics", "bob@physics"}})
	l.group(Group{"physics:higgs", higgsGID, nil})
}

// pairs are heads and bases, of which some do not belong together.
var pairs = map[string]pairCase{
	"nothing-changed": {head: func(*layout) {}, base: both, alice: "/base", aliceID: "/base", bob: "/base", bobID: "/base"},
	"alice-changed": {head: func(l *layout) {
		one(l, "alice", aliceUID, "/head")
		l.group(Group{"physics:higgs", higgsGID, []string{"alice@physics"}})
	},
		base: both, alice: "/head", aliceID: "/head", bob: "/base", bobID: "/base"},
	"alice-gone": {head: func(l *layout) { l.gone("alice@physics", aliceUID, true, true) }, base: both, bob: "/base", bobID: "/base"},
	"alice-moved": {head: func(l *layout) { one(l, "alice", carolUID, "/head"); l.gone("alice@physics", aliceUID, false, true) },
		base: both, alice: "/head", bob: "/base", bobID: "/base"},
	"bob-has-alices-id": {head: func(l *layout) {
		one(l, "bob", aliceUID, "/head")
		l.gone("alice@physics", aliceUID, true, false)
		l.gone("bob@physics", bobUID, false, true)
	},
		base: both, aliceID: "/head", bob: "/head"},
	"gone-in-base": {head: func(l *layout) { one(l, "bob", bobUID, "/head") }, base: func(l *layout) { l.gone("alice@physics", aliceUID, true, true) },
		bob: "/head", bobID: "/head"},
	"another-base":   {based: 6, head: func(*layout) {}, base: both, broken: true},
	"base-of-base":   {head: func(*layout) {}, base: both, baseBased: 4, broken: true},
	"base-of-others": {head: func(*layout) {}, base: func(*layout) {}, baseVO: "biology", broken: true},
	"no-base":        {head: func(l *layout) { one(l, "alice", aliceUID, "/head") }, broken: true},
}

func (c pairCase) encode(t *testing.T) []byte {
	finish := func(l *layout, fill func(*layout), generation uint64) []byte {
		fill(l)
		b, err := l.finish(generation)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	based := max(c.based, 5)
	b := finish(newLayout("physics", based, 4, 0), c.head, 8)
	if c.base == nil {
		return b
	}
	vo := c.baseVO
	if vo == "" {
		vo = "physics"
	}
	return append(b, finish(newLayout(vo, c.baseBased, 4, 0), c.base, 5)...)
}

// TestPairs: a head counts before the base that it names, and one without its
// own base says nothing. They are in the corpus of the fuzzers, as they would be
// written now.
func TestPairs(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		c := pairs[name]
		t.Run(name, func(t *testing.T) {
			b := c.encode(t)
			path := filepath.Join("testdata", "snapshot", "pair-"+name)
			if *update {
				if err := os.WriteFile(path, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(b, kept) {
				t.Errorf("the corpus has another pair, -update writes it: %v", err)
			}
			s, err := readPair(b)
			if c.broken {
				if xos.KindOf(err) != xos.Internal {
					t.Errorf("%+v, %v", s, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			check := func(what, want string, r Record, err error) {
				t.Helper()
				got := ""
				if err == nil && r.User != nil {
					got = r.User.Dir
				} else if xos.KindOf(err) != xos.NotFound {
					t.Errorf("%s: %+v, %v", what, r, err)
				}
				if got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			for what, want := range map[string]string{"alice@physics": c.alice, "bob@physics": c.bob} {
				r, err := s.Named(what)
				check(what, want, r, err)
			}
			for id, want := range map[uint32]string{aliceUID: c.aliceID, bobUID: c.bobID} {
				r, err := s.Numbered(id)
				check("an id", want, r, err)
			}
		})
	}
}
