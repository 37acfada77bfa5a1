package service_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xtreemos/xos/session"
)

// diary notes which sessions it was told of.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(what string, s session.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Mapping.UID < session.FirstID || s.Opened.IsZero() || s.Identity.Serial == "" {
		what += " half a session"
	}
	d.lines = append(d.lines, what+" "+string(s.ID)+" of "+s.Identity.Account.String())
}

func (d *diary) Began(s session.Session)   { d.note("began", s) }
func (d *diary) Adopted(s session.Session) { d.note("adopted", s) }
func (d *diary) Ended(s session.Session)   { d.note("ended", s) }

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// TestRootStaysAreTold: each session once, over a restart, and none that was
// refused.
func TestRootStaysAreTold(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	p, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	banned, _ := s.ca.SSHUser("mallory@physics")
	mallory := alice
	mallory.User = "mallory"
	if _, _, err := s.open(mallory, banned); err == nil {
		t.Fatal("she is let in")
	}
	s.kill()
	s.start()
	if err := s.PAMClose(t.Context(), p, reply.Session); err != nil {
		t.Fatal(err)
	}
	kill(p)
	s.eventually("the session ends", func() bool { return s.sessions() == 0 })
	id := string(reply.Session) + " of alice@physics"
	if got, want := s.diary.all(), []string{"began " + id, "adopted " + id, "ended " + id}; !slices.Equal(got, want) {
		t.Errorf("told\n%s", strings.Join(got, "\n"))
	}
}
