package audit_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos/infra/audit"
)

// sent is a journal that keeps what it is told.
type sent struct {
	mu       sync.Mutex
	messages []string
	fields   []map[string]string
	err      error
}

func (s *sent) send(message string, p journal.Priority, fields map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages, s.fields = append(s.messages, message), append(s.fields, fields)
	return s.err
}

// run runs j until everything was passed on.
func run(t *testing.T, j *audit.Journal) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// The journal has what verify can be asked for.
func TestJournalHasNumberAndHash(t *testing.T) {
	var s sent
	j := audit.NewJournal(s.send, slog.New(slog.DiscardHandler))
	l := openWith(t, filepath.Join(t.TempDir(), "audit.log"), audit.To(j))
	for _, r := range []audit.Record{
		{Actor: "root", Action: "add", Subject: "alice@physics", VO: "physics", User: "alice", Allowed: true},
		{Actor: "10.0.0.9:1", Action: "issue", Subject: "bob@chemistry", Reason: "wrong password\nMESSAGE=forged"},
	} {
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	run(t, j)
	want := []string{"audit: root: add alice@physics allowed", "audit: 10.0.0.9:1: issue bob@chemistry refused: wrong password\nMESSAGE=forged"}
	if d := cmp.Diff(want, s.messages); d != "" {
		t.Error(d)
	}
	_, head := l.Head()
	if f := s.fields[1]; f["XOS_AUDIT_SEQ"] != "2" || f["XOS_AUDIT_HASH"] != head || f["XOS_AUDIT_VERDICT"] != "refused" || f["MESSAGE_ID"] != audit.MessageID {
		t.Error(f)
	}
	if f := s.fields[1]; f["XOS_AUDIT_USER"] != "bob" || f["XOS_AUDIT_VO"] != "chemistry" {
		t.Errorf("whom it concerned, from the subject: %v", f)
	}
	if f := s.fields[0]; f["XOS_AUDIT_USER"] != "alice" || f["XOS_AUDIT_VO"] != "physics" {
		t.Error(f)
	}
	if _, _, err := l.Verify(audit.Mark{Seq: 1, Hash: s.fields[0]["XOS_AUDIT_HASH"]}); err != nil {
		t.Error(err)
	}
}

// A journal that takes nothing keeps no decision from being written; what it
// missed is counted and told.
func TestJournalIsNotWaitedFor(t *testing.T) {
	var said strings.Builder
	s := sent{err: errors.New("no journal")}
	j := audit.NewJournal(s.send, slog.New(slog.NewTextHandler(&said, nil)))
	path := filepath.Join(t.TempDir(), "audit.log")
	l := openWith(t, path, audit.To(j))
	var wg sync.WaitGroup
	const each, writers = 100, 50
	for range writers {
		wg.Go(func() { add(t, l, each) })
	}
	wg.Wait()
	if lost := j.Lost(); lost == 0 || lost >= each*writers {
		t.Fatalf("%d of %d are left out before anything was sent", lost, each*writers)
	}
	run(t, j)
	if lost := j.Lost(); lost != each*writers {
		t.Errorf("%d of %d are left out, and nothing was taken", lost, each*writers)
	}
	if n := strings.Count(said.String(), "did not take all"); n == 0 || n > 2 {
		t.Errorf("told %d times: %s", n, said.String())
	}
	whole(t, path, each*writers)
}
