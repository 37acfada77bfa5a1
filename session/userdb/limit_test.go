package userdb

import "testing"

// TestLimits: no user takes the connections of another, nor all of them root's.
func TestLimits(t *testing.T) {
	s := &Server{users: map[uint32]int{}}
	enter := func(uid uint32) (n int) {
		for s.enter(uid) {
			n++
		}
		return n
	}
	if n := enter(1000); n != perUser {
		t.Errorf("one user has %d connections", n)
	}
	all := perUser
	for uid := uint32(2000); uid < 2100; uid++ {
		all += enter(uid)
	}
	if all != allUsers {
		t.Errorf("all users have %d connections", all)
	}
	if n := enter(0); n != perRoot {
		t.Errorf("root has %d connections", n)
	}
	s.leave(1000)
	if n := enter(3000); n != 1 {
		t.Errorf("what one has given back, another gets %d times", n)
	}
	for range perRoot {
		s.leave(0)
	}
	if n := enter(0); n != perRoot {
		t.Errorf("root has %d connections afterwards", n)
	}
}
