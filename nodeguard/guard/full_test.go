package guard_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

// TestRootNoRoomForAUID labels as many uids as the kernel's maps have room for: the
// next one is told so, and how there will be room; when one is free another gets
// its place, and who is labelled logs in all the while.
func TestRootNoRoomForAUID(t *testing.T) {
	s := metered(t)
	login := func(i int) error {
		return s.Login(t.Context(), xos.Account{User: xos.UserID(fmt.Sprintf("u%d", i)), VO: "physics"}, recycled+uint32(i))
	}
	begin, n := time.Now(), 0
	var err error
	for ; n < 70_000; n++ {
		if err = login(n); err != nil {
			break
		}
	}
	t.Logf("%d uids in %v, then %v", n, time.Since(begin).Round(time.Millisecond), err)
	if n < 65_536-100 || n > 65_536 {
		t.Errorf("%d have room", n)
	}
	for range 2 {
		if err := login(n); !xos.Is(err, xos.Unavailable) || !strings.Contains(err.Error(), "no room") || !strings.Contains(err.Error(), "xos uid sweep") || strings.Contains(err.Error(), "argument list") {
			t.Errorf("one more: %v", err)
		}
		if err := login(7); err != nil {
			t.Errorf("one that is labelled: %v", err)
		}
		if err := s.Forget(t.Context(), recycled+uint32(n/2), nobodys); err != nil {
			t.Fatal(err)
		}
		if err := login(n); err != nil {
			t.Errorf("when there is room: %v", err)
		}
		if err := s.Forget(t.Context(), recycled+uint32(n), nobodys); err != nil {
			t.Fatal(err)
		}
		if err := login(n / 2); err != nil {
			t.Errorf("back: %v", err)
		}
	}
}
