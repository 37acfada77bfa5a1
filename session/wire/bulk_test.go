package wire

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/xtreemos/xos"
)

// sheet is a file in memory, or one of a disk that is full after some bytes.
type sheet struct {
	mu   sync.Mutex
	b    []byte
	room int
}

var errFull = errors.New("the disk is full")

func (s *sheet) WriteAt(b []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := int(at) + len(b); n > s.room {
		return 0, errFull
	} else if n > len(s.b) {
		s.b = append(s.b, make([]byte, n-len(s.b))...)
	}
	return copy(s.b[at:], b), nil
}

// TestBulk: many users that several processors write are the same file, byte by
// byte, as one after the other; and what cannot be written is refused.
func TestBulk(t *testing.T) {
	for _, users := range []int{0, 1, 2000, 3*perWorker + 17, 60_000} {
		s := physics(users)
		want, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		lists, err := s.Whole().rosters()
		if err != nil {
			t.Fatal(err)
		}
		got := &sheet{room: snapMax}
		if size, err := s.Whole().write(got, s.Generation, lists); err != nil || size != len(want) || !bytes.Equal(want, got.b) {
			t.Errorf("%d users: %d bytes, %d of %d are there, %v", users, size, len(got.b), len(want), err)
		}
	}
	last := func(s *Snapshot) *SnapshotUser { return &s.Users[len(s.Users)-1] }
	for what, c := range map[string]struct {
		spoil func(s *Snapshot)
		room  int
		kind  xos.Kind
	}{
		"a name twice":     {spoil: func(s *Snapshot) { last(s).Name = s.Users[5].Name }, kind: xos.Conflict},
		"an id twice":      {spoil: func(s *Snapshot) { last(s).UID, last(s).GID = s.Users[5].UID, s.Users[5].UID }, kind: xos.Conflict},
		"a group's id":     {spoil: func(s *Snapshot) { last(s).UID, last(s).GID = firstID+1, firstID+1 }, kind: xos.Conflict},
		"another VO's":     {spoil: func(s *Snapshot) { last(s).Name = "x@biology" }, kind: xos.Invalid},
		"no grid id":       {spoil: func(s *Snapshot) { last(s).UID, last(s).GID = 5, 5 }, kind: xos.Internal},
		"a NUL":            {spoil: func(s *Snapshot) { last(s).Dir = "/\x00" }, kind: xos.Invalid},
		"a long field":     {spoil: func(s *Snapshot) { last(s).Dir = strings.Repeat("x", maxBody+1) }, kind: xos.Invalid},
		"a long record":    {spoil: func(s *Snapshot) { last(s).Dir = strings.Repeat("x", maxBody-10) }, kind: xos.TooLarge},
		"too many groups":  {spoil: func(s *Snapshot) { last(s).Groups = make([]uint32, maxGroups+1) }, kind: xos.TooLarge},
		"no room at all":   {room: 1},
		"no room at first": {room: 4000},
		"no room at last":  {room: 1 << 20},
	} {
		s := physics(2*perWorker + 100)
		if c.spoil != nil {
			c.spoil(&s)
		}
		lists, err := s.Whole().rosters()
		if err != nil {
			t.Fatal(err)
		}
		full := &sheet{room: c.room}
		if c.room == 0 {
			full.room = snapMax
		}
		_, err = s.Whole().write(full, s.Generation, lists)
		if err == nil || c.room == 0 && xos.KindOf(err) != c.kind || c.room != 0 && !errors.Is(err, errFull) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
