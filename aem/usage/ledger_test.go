package usage_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

// core takes records, or fails while it is away.
type core struct {
	xosv1connect.UsageClient
	mu   sync.Mutex
	away bool
	sums usage.Sums
	puts int
}

func (c *core) PutUsage(_ context.Context, req *connect.Request[xosv1.PutUsageRequest]) (*connect.Response[xosv1.PutUsageResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, xos.Errorf(xos.Unavailable, "away")
	}
	for _, r := range req.Msg.Records {
		if strings.HasPrefix(r.Job, "refused") {
			return nil, xos.Errorf(xos.Invalid, "not this one")
		}
	}
	resp := &xosv1.PutUsageResponse{}
	for _, r := range req.Msg.Records {
		if c.puts++; strings.HasPrefix(r.Job, "unknown") {
			resp.Unwanted = append(resp.Unwanted, r.Job)
			continue
		}
		c.sums.Add(r)
	}
	return connect.NewResponse(resp), nil
}

func (c *core) has() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sums.Records())
}

func open(t *testing.T, dir string, now time.Time) *usage.Ledger {
	t.Helper()
	l, err := usage.OpenLedger(dir, 60*24*time.Hour, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func put(t *testing.T, l *usage.Ledger, list ...*xosv1.UsageRecord) {
	t.Helper()
	for _, r := range list {
		if err := l.Put(r); err != nil {
			t.Fatal(err)
		}
	}
}

// seen is what root reads, page by page.
func seen(t *testing.T, l *usage.Ledger, req *xosv1.ListUsageRequest) (jobs []string) {
	t.Helper()
	ctx := rpc.WithPeer(t.Context(), rpc.Peer{Unix: true})
	for {
		resp, err := usage.Local{Ledger: l}.ListUsage(ctx, connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.Msg.Records {
			jobs = append(jobs, r.Job)
		}
		if req.After = resp.Msg.After; req.After == "" {
			return jobs
		}
	}
}

// until runs the ledger's sender until enough holds.
func until(t *testing.T, l *usage.Ledger, c *core, enough func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx, c); close(done) }()
	for deadline := time.Now().Add(10 * time.Second); !enough(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the core was not told")
		}
	}
	cancel()
	<-done
}

func TestLedgerKeepsUntilTheCoreKnows(t *testing.T) {
	dir, now := t.TempDir(), begin.Add(time.Hour)
	l := open(t, dir, now)
	running := record("running", "alice@physics", "node1")
	running.Final = false
	put(t, l, record("a", "alice@physics", "node1"), record("b", "bob@physics", "node1"), running, record("unknown-1", "bob@physics", "node1"))
	changed := record("a", "alice@physics", "node1")
	changed.SentBytes = 77
	put(t, l, changed)
	if r := l.Open("a"); r.SentBytes != 0 {
		t.Errorf("a final record was changed: %v", r)
	}
	c := &core{away: true}
	l = open(t, dir, now) // the process was killed
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	l.Run(ctx, c)
	cancel()
	c.away = false
	l = open(t, dir, now)
	until(t, l, c, func() bool {
		return c.has() == 3 && l.Open("a") == nil && l.Open("b") == nil && l.Open("unknown-1") == nil
	})
	if l.Open("running") == nil {
		t.Error("a job that runs was settled")
	}
	for range 2 {
		if got := seen(t, l, &xosv1.ListUsageRequest{Limit: 1}); !slices.Equal(got, []string{"a", "b", "running", "unknown-1"}) {
			t.Errorf("root sees %q", got)
		}
		l = open(t, dir, now)
	}
	if got := seen(t, l, &xosv1.ListUsageRequest{Vo: "physics", User: "alice"}); !slices.Equal(got, []string{"a", "running"}) {
		t.Errorf("of alice: %q", got)
	}
	if err := l.Abandon(func(xos.JobID) bool { return true }); err != nil || l.Open("running").Final {
		t.Errorf("%v, %v", err, l.Open("running"))
	}
	if err := l.Abandon(func(xos.JobID) bool { return false }); err != nil || !l.Open("running").Final || !l.Open("running").Incomplete {
		t.Errorf("%v, %v", err, l.Open("running"))
	}
}

// TestLedgerDiesAnywhere leaves in the files what a machine leaves that stops
// between any two steps of settling a record.
func TestLedgerDiesAnywhere(t *testing.T) {
	now := begin.Add(time.Hour)
	settled := t.TempDir()
	l := open(t, settled, now)
	put(t, l, record("a", "alice@physics", "node1"), record("b", "alice@physics", "node1"))
	c := &core{}
	until(t, l, c, func() bool { return l.Open("a") == nil && l.Open("b") == nil })
	month, err := os.ReadFile(filepath.Join(settled, "2026-11.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	unsettled := t.TempDir()
	put(t, open(t, unsettled, now), record("a", "alice@physics", "node1"), record("b", "alice@physics", "node1"))
	for cut := range len(month) + 1 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(unsettled)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "2026-11.jsonl"), month[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "open", ".new-1"), month[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir, now)
		if got := seen(t, l, &xosv1.ListUsageRequest{}); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("after %d of %d bytes: %q", cut, len(month), got)
		}
		if cut%100 == 0 {
			until(t, l, c, func() bool { return l.Open("a") == nil && l.Open("b") == nil })
			if got := seen(t, open(t, dir, now), &xosv1.ListUsageRequest{}); !slices.Equal(got, []string{"a", "b"}) {
				t.Fatalf("settled again after %d bytes: %q", cut, got)
			}
		}
	}
	if n := c.has(); n != 2 {
		t.Errorf("the core counts %d jobs", n)
	}
}

// TestOneRefusedRecord: what the core does not take keeps nothing else back, and
// is not given up.
func TestOneRefusedRecord(t *testing.T) {
	l, c := open(t, t.TempDir(), begin.Add(time.Hour)), &core{}
	for i := range 120 {
		put(t, l, record(fmt.Sprint("job-", i), "alice@physics", "node1"))
	}
	put(t, l, record("refused", "alice@physics", "node1"))
	until(t, l, c, func() bool { return c.has() == 120 })
	if l.Open("refused") == nil {
		t.Error("a refused record is gone")
	}
}

func TestLedgerForgets(t *testing.T) {
	dir, c := t.TempDir(), &core{}
	for i, months := range []int{0, 1, 2, 4} {
		now := begin.AddDate(0, months, 0)
		l := open(t, dir, now.Add(time.Hour))
		r := record(fmt.Sprint("job-", i), "alice@physics", "node1")
		r.Until = timestamppb.New(now)
		put(t, l, r)
		until(t, l, c, func() bool { return l.Open(xos.JobID(r.Job)) == nil })
	}
	l := open(t, dir, begin.AddDate(0, 4, 0))
	if got := seen(t, l, &xosv1.ListUsageRequest{}); !slices.Equal(got, []string{"job-2", "job-3"}) {
		t.Errorf("left: %q", got)
	}
	if got := seen(t, l, &xosv1.ListUsageRequest{Since: timestamppb.New(begin.AddDate(0, 3, 0))}); !slices.Equal(got, []string{"job-3"}) {
		t.Errorf("since: %q", got)
	}
	if got := seen(t, l, &xosv1.ListUsageRequest{Before: timestamppb.New(begin.AddDate(0, 3, 0))}); !slices.Equal(got, []string{"job-2"}) {
		t.Errorf("before: %q", got)
	}
}

func TestOnlyRootReadsTheLedger(t *testing.T) {
	l := open(t, t.TempDir(), begin)
	_, err := usage.Local{Ledger: l}.ListUsage(rpc.WithPeer(t.Context(), rpc.Peer{Address: "192.0.2.1:1"}), connect.NewRequest(&xosv1.ListUsageRequest{}))
	if !xos.Is(err, xos.Permission) {
		t.Errorf("from the network: %v", err)
	}
	if _, err := (usage.Local{Ledger: l}).PutUsage(rpc.WithPeer(t.Context(), rpc.Peer{Unix: true}), connect.NewRequest(&xosv1.PutUsageRequest{})); err == nil {
		t.Error("root writes records by hand")
	}
}

// FuzzLedger opens what somebody else wrote into the files.
func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"job":"a","account":"alice@physics","node":"node1"}` + "\n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "open"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{"2026-11.jsonl", "open/a.json"} {
			if err := os.WriteFile(filepath.Join(dir, at), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := usage.OpenLedger(dir, 0, func() time.Time { return begin }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Each(time.Time{}, time.Time{}, func(*xosv1.UsageRecord) bool { return true })
		_ = l.Abandon(func(xos.JobID) bool { return false })
	})
}
