package directory_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/directory"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// world is a job directory with the callers of a small grid.
type world struct {
	store kv.Store
	t     *testing.T
	ca    *credtest.Authority
	d     *directory.Directory
	now   time.Time

	alice1, alice2, bob1, node1, node2, node3 context.Context
}

func newWorld(t *testing.T, cfg directory.Config) *world {
	store, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w := &world{t: t, ca: credtest.New(t), now: time.Now()}
	w.store = store
	w.d = directory.New(cfg, store, w.ca.Verifier(), func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	w.alice1 = w.as(w.ca.Delegated("alice@physics", "node1"))
	w.alice2 = w.as(w.ca.Delegated("alice@physics", "node2"))
	w.bob1 = w.as(w.ca.Delegated("bob@physics", "node1"))
	w.node1 = w.as(w.ca.Machine("node1", vom.ServiceNode))
	w.node2 = w.as(w.ca.Machine("node2", vom.ServiceNode))
	w.node3 = w.as(w.ca.Machine("node3", vom.ServiceNode))
	return w
}

func (w *world) as(c tls.Certificate) context.Context {
	return rpc.WithPeer(context.Background(), rpc.Peer{Chain: credtest.Chain(w.t, c)})
}

func (w *world) put(ctx context.Context, job *xosv1.Job) error {
	w.t.Helper()
	resp, err := w.d.PutJob(ctx, connect.NewRequest(&xosv1.PutJobRequest{Job: job}))
	if err == nil {
		job.Epoch = resp.Msg.Epoch
	}
	return err
}

func (w *world) get(ctx context.Context, id string) (*xosv1.Job, error) {
	resp, err := w.d.GetJob(ctx, connect.NewRequest(&xosv1.GetJobRequest{Job: id}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *world) list(ctx context.Context, all bool) (ids []string) {
	w.t.Helper()
	resp, err := w.d.ListJobs(ctx, connect.NewRequest(&xosv1.ListJobsRequest{All: all}))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, j := range resp.Msg.Jobs {
		ids = append(ids, j.Id)
	}
	return ids
}

func newJob(id string) *xosv1.Job {
	return &xosv1.Job{Id: id, Account: "alice@physics", SubmitNode: "node1", ExecutionNode: "node2",
		Spec: &xosv1.JobSpec{Argv: []string{"true"}}, State: xosv1.JobState_JOB_STATE_NEW, Submitted: timestamppb.Now()}
}

func TestLifeOfARecord(t *testing.T) {
	w := newWorld(t, directory.Config{})
	job := newJob("core-1")
	if err := w.put(w.alice1, job); err != nil {
		t.Fatal(err)
	}
	stale := proto.CloneOf(job)
	job.State, job.Started = xosv1.JobState_JOB_STATE_RUNNING, timestamppb.Now()
	if err := w.put(w.node1, job); err != nil || job.Epoch != 2 {
		t.Fatalf("epoch %d, %v", job.Epoch, err)
	}
	stale.State = xosv1.JobState_JOB_STATE_SUSPENDED
	if err := w.put(w.node2, stale); !xos.Is(err, xos.Conflict) {
		t.Errorf("a stale writer: %v", err)
	}
	again := proto.CloneOf(job)
	again.Epoch = 1 // the answer to a first attempt was lost
	if err := w.put(w.node1, again); err != nil || again.Epoch != 2 {
		t.Errorf("said twice: epoch %d, %v", again.Epoch, err)
	}
	if _, err := w.d.RequestKill(w.alice2, connect.NewRequest(&xosv1.RequestKillRequest{Job: "core-1"})); err != nil {
		t.Fatal(err)
	}
	got, err := w.get(w.node2, "core-1")
	if err != nil || !got.KillWanted || got.Epoch != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	got.KillWanted = false
	got.State, got.Ended, got.ExitSignal = xosv1.JobState_JOB_STATE_CANCELED, timestamppb.New(w.now), 9
	if err := w.put(w.node2, got); err != nil {
		t.Fatal(err)
	}
	if got, err = w.get(w.alice2, "core-1"); err != nil || !got.KillWanted || got.ExitSignal != 9 {
		t.Errorf("%v, %v", got, err)
	}
	got.ExitSignal = 0
	if err := w.put(w.node1, got); !xos.Is(err, xos.Conflict) {
		t.Errorf("an end was changed: %v", err)
	}
	if l := w.list(w.alice1, false); len(l) != 0 {
		t.Errorf("live jobs %v", l)
	}
	if l := w.list(w.alice1, true); len(l) != 1 {
		t.Errorf("all jobs %v", l)
	}
	w.now = w.now.Add(23 * time.Hour)
	if n, err := w.d.Forget(t.Context()); n != 0 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	w.now = w.now.Add(2 * time.Hour)
	if n, err := w.d.Forget(t.Context()); n != 1 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if _, err := w.get(w.alice1, "core-1"); !xos.Is(err, xos.NotFound) {
		t.Errorf("still there: %v", err)
	}
	if l := append(w.list(w.alice1, true), append(w.list(w.node1, true), w.list(w.node2, true)...)...); len(l) != 0 {
		t.Errorf("still listed: %v", l)
	}
}

func TestWhoMayCreate(t *testing.T) {
	w := newWorld(t, directory.Config{})
	edit := func(f func(*xosv1.Job)) *xosv1.Job {
		j := newJob("core-x")
		f(j)
		return j
	}
	none := func(*xosv1.Job) {}
	for _, tt := range []struct {
		name string
		who  context.Context
		job  *xosv1.Job
		want xos.Kind
	}{
		{"nobody", context.Background(), edit(none), xos.Permission},
		{"another user", w.bob1, edit(none), xos.Permission},
		{"another machine", w.alice2, edit(none), xos.Permission},
		{"the machine alone", w.node1, edit(none), xos.Permission},
		{"not delegated", w.as(w.ca.X509User("alice@physics")), edit(func(j *xosv1.Job) { j.SubmitNode = "" }), xos.Permission},
		{"storage", w.as(w.ca.Machine("node1", vom.ServiceStorage)), edit(none), xos.Permission},
		{"foreign", w.as(credtest.New(t).Delegated("alice@physics", "node1")), edit(none), xos.Permission},
		{"not new", w.alice1, edit(func(j *xosv1.Job) { j.State = xosv1.JobState_JOB_STATE_DONE }), xos.Invalid},
		{"no state", w.alice1, edit(func(j *xosv1.Job) { j.State = 0 }), xos.Invalid},
		{"bad id", w.alice1, edit(func(j *xosv1.Job) { j.Id = "../x" }), xos.Invalid},
		{"bad node", w.alice1, edit(func(j *xosv1.Job) { j.ExecutionNode = "a/b" }), xos.Invalid},
		{"no spec", w.alice1, edit(func(j *xosv1.Job) { j.Spec = nil }), xos.Invalid},
		{"huge", w.alice1, edit(func(j *xosv1.Job) { j.Spec.Argv = []string{string(make([]byte, 300<<10))} }), xos.TooLarge},
		{"unknown epoch", w.alice1, edit(func(j *xosv1.Job) { j.Epoch = 4 }), xos.NotFound},
	} {
		if err := w.put(tt.who, tt.job); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := w.d.ListJobs(w.node1, connect.NewRequest(&xosv1.ListJobsRequest{Node: "node2"})); !xos.Is(err, xos.Permission) {
		t.Errorf("another machine's jobs: %v", err)
	}
}

func TestOthersSeeNothing(t *testing.T) {
	w := newWorld(t, directory.Config{})
	job := newJob("core-1")
	if err := w.put(w.alice1, job); err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]context.Context{"bob": w.bob1, "node3": w.node3} {
		if _, err := w.get(who, "core-1"); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s reads: %v", name, err)
		}
		changed := proto.CloneOf(job)
		changed.KillWanted = true
		if err := w.put(who, changed); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s writes: %v", name, err)
		}
		if _, err := w.d.RequestKill(who, connect.NewRequest(&xosv1.RequestKillRequest{Job: "core-1"})); err == nil {
			t.Errorf("%s kills", name)
		}
		if l := w.list(who, true); len(l) != 0 {
			t.Errorf("%s lists %v", name, l)
		}
	}
	for name, change := range map[string]func(*xosv1.Job){
		"command": func(j *xosv1.Job) { j.Spec.Argv = []string{"rm"} },
		"owner":   func(j *xosv1.Job) { j.Account = "bob@physics" },
		"submit":  func(j *xosv1.Job) { j.SubmitNode = "node2" },
		"place":   func(j *xosv1.Job) { j.ExecutionNode = "node3" },
	} {
		changed := proto.CloneOf(job)
		change(changed)
		if err := w.put(w.node2, changed); !xos.Is(err, xos.Permission) {
			t.Errorf("the machine changed the %s: %v", name, err)
		}
	}
	// Where the job runs next, its submitter decides; the old place is out.
	job.ExecutionNode = "node3"
	if err := w.put(w.node1, job); err != nil {
		t.Fatal(err)
	}
	if l := w.list(w.node2, true); len(l) != 0 {
		t.Errorf("node2 lists %v", l)
	}
	if l := w.list(w.node3, true); len(l) != 1 {
		t.Errorf("node3 lists %v", l)
	}
	w.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now().Add(time.Second)})
	if _, err := w.get(w.alice1, "core-1"); !xos.Is(err, xos.Permission) {
		t.Errorf("a removed member reads: %v", err)
	}
}

func TestLimitPerUser(t *testing.T) {
	w := newWorld(t, directory.Config{PerUser: 3, Keep: time.Hour})
	for i := range 3 {
		job := newJob(fmt.Sprintf("core-%d", i))
		if err := w.put(w.alice1, job); err != nil {
			t.Fatal(err)
		}
		job.State, job.Ended = xosv1.JobState_JOB_STATE_DONE, timestamppb.New(w.now)
		if err := w.put(w.node2, job); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.put(w.alice1, newJob("core-4")); !xos.Is(err, xos.TooLarge) {
		t.Errorf("one too many: %v", err)
	}
	bobs := newJob("core-5")
	bobs.Account = "bob@physics"
	if err := w.put(w.bob1, bobs); err != nil {
		t.Errorf("bob: %v", err)
	}
	w.now = w.now.Add(2 * time.Hour)
	if n, err := w.d.Forget(t.Context()); n != 3 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if err := w.put(w.alice1, newJob("core-6")); err != nil {
		t.Errorf("after they were forgotten: %v", err)
	}
}
