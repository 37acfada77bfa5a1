package directory_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/directory"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// ran submits a job of alice's on node1 that node2 runs from then on.
func (w *world) ran(id string) *xosv1.Job {
	w.t.Helper()
	job := newJob(id)
	job.Submitted = timestamppb.New(w.now)
	if err := w.put(w.alice1, job); err != nil {
		w.t.Fatal(err)
	}
	job.State, job.Started = xosv1.JobState_JOB_STATE_RUNNING, timestamppb.New(w.now)
	if err := w.put(w.node1, job); err != nil {
		w.t.Fatal(err)
	}
	return job
}

// used is what node2 says of it.
func (w *world) used(job *xosv1.Job, final bool) *xosv1.UsageRecord {
	return &xosv1.UsageRecord{Job: job.Id, Account: job.Account, Node: "node2", Submitted: job.Submitted, Started: job.Started,
		Until: timestamppb.New(w.now), Final: final, CpuUserMicros: 5, SentBytes: 7, Executions: 3, Uncounted: []string{"opens"}}
}

func (w *world) tell(ctx context.Context, list ...*xosv1.UsageRecord) ([]string, error) {
	resp, err := w.d.PutUsage(ctx, connect.NewRequest(&xosv1.PutUsageRequest{Records: list}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.Unwanted, nil
}

// read pages through what the caller sees.
func (w *world) read(ctx context.Context, req *xosv1.ListUsageRequest) (list []*xosv1.UsageRecord, err error) {
	for {
		resp, err := w.d.ListUsage(ctx, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		list = append(list, resp.Msg.Records...)
		if req.After = resp.Msg.After; req.After == "" {
			return list, nil
		}
	}
}

func (w *world) one(ctx context.Context) *xosv1.UsageRecord {
	w.t.Helper()
	list, err := w.read(ctx, &xosv1.ListUsageRequest{})
	if err != nil || len(list) != 1 {
		w.t.Fatalf("%v, %v", list, err)
	}
	return list[0]
}

func TestUsageIsCountedOnce(t *testing.T) {
	w := newWorld(t, directory.Config{})
	job := w.ran("core-1")
	w.now = w.now.Add(time.Minute)
	if _, err := w.tell(w.node2, w.used(job, false)); err != nil {
		t.Fatal(err)
	}
	if r := w.one(w.alice1); r.Final || r.SentBytes != 7 {
		t.Errorf("while it runs: %v", r)
	}
	w.now = w.now.Add(time.Minute)
	last := w.used(job, true)
	last.SentBytes, last.Account, last.Executable, last.Credential = 99, "alice@physics", "/bin/forged", "12345"
	for range 3 {
		if unwanted, err := w.tell(w.node2, last); err != nil || len(unwanted) > 0 {
			t.Fatal(unwanted, err)
		}
	}
	more := proto.CloneOf(last)
	more.SentBytes = 100
	if _, err := w.tell(w.node2, more, w.used(job, false)); err != nil {
		t.Fatal(err)
	}
	r := w.one(w.alice1)
	if !r.Final || r.SentBytes != 99 || r.Executable != "true" || r.Node != "node2" {
		t.Errorf("in the end: %v", r)
	}
	if r.Credential == "" || r.Credential == "12345" {
		t.Errorf("by the credential %q", r.Credential)
	}
	// The end of the job adds nothing, nor that it is forgotten.
	job.State, job.Ended = xosv1.JobState_JOB_STATE_DONE, timestamppb.New(w.now)
	if err := w.put(w.node2, job); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(25 * time.Hour)
	if n, err := w.d.Forget(t.Context()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	w.one(w.alice1)
}

// TestUsageOfASilentMachine ends a job whose machine does not tell until long
// after its record is gone.
func TestUsageOfASilentMachine(t *testing.T) {
	w := newWorld(t, directory.Config{})
	job := w.ran("core-1")
	w.now = w.now.Add(time.Minute)
	job.State, job.Ended, job.CpuMicros = xosv1.JobState_JOB_STATE_FAILED, timestamppb.New(w.now), 42
	if err := w.put(w.node1, job); err != nil {
		t.Fatal(err)
	}
	if r := w.one(w.alice1); r.Final || !r.Incomplete || r.CpuUserMicros != 42 || slices.Contains(r.Uncounted, "cpu") || !slices.Contains(r.Uncounted, "net") {
		t.Errorf("owed: %v", r)
	}
	last := w.used(job, true)
	w.now = w.now.Add(48 * time.Hour)
	if _, err := w.d.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if unwanted, err := w.tell(w.node2, last); err != nil || len(unwanted) > 0 {
		t.Fatal(unwanted, err)
	}
	if r := w.one(w.alice1); !r.Final || r.Incomplete || r.SentBytes != 7 {
		t.Errorf("told at last: %v", r)
	}
}

func TestWhoMayTellOfUsage(t *testing.T) {
	w := newWorld(t, directory.Config{})
	job := w.ran("core-1")
	w.now = w.now.Add(time.Minute)
	edit := func(f func(*xosv1.UsageRecord)) *xosv1.UsageRecord {
		r := w.used(job, true)
		f(r)
		return r
	}
	none := func(*xosv1.UsageRecord) {}
	for _, tt := range []struct {
		name string
		who  context.Context
		r    *xosv1.UsageRecord
		want xos.Kind
	}{
		{"its user", w.alice1, edit(none), xos.Permission},
		{"another machine", w.node3, edit(none), xos.Permission},
		{"nobody", rpc.WithPeer(context.Background(), rpc.Peer{}), edit(none), xos.Permission},
		{"root on the core", rpc.WithPeer(context.Background(), rpc.Peer{Unix: true}), edit(none), xos.Permission},
		{"storage", w.as(w.ca.Machine("node2", vom.ServiceStorage)), edit(none), xos.Permission},
		{"negative", w.node2, edit(func(r *xosv1.UsageRecord) { r.SentBytes = -1 }), xos.Invalid},
		{"from the future", w.node2, edit(func(r *xosv1.UsageRecord) { r.Until = timestamppb.New(w.now.Add(time.Hour)) }), xos.Invalid},
		{"ends before it starts", w.node2, edit(func(r *xosv1.UsageRecord) { r.Until = timestamppb.New(job.Started.AsTime().Add(-1)) }), xos.Invalid},
		{"no time", w.node2, edit(func(r *xosv1.UsageRecord) { r.Started = nil }), xos.Invalid},
		{"bad id", w.node2, edit(func(r *xosv1.UsageRecord) { r.Job = "../x" }), xos.Invalid},
		{"a figure that is none", w.node2, edit(func(r *xosv1.UsageRecord) { r.Uncounted = []string{"x"} }), xos.Invalid},
		{"huge", w.node2, edit(func(r *xosv1.UsageRecord) { r.Name = string(make([]byte, 5000)) }), xos.TooLarge},
	} {
		if _, err := w.tell(tt.who, tt.r); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	elsewhere := edit(func(r *xosv1.UsageRecord) { r.Node = "node3" })
	unknown := edit(func(r *xosv1.UsageRecord) { r.Job = "core-9" })
	if unwanted, err := w.tell(w.node3, elsewhere); err != nil || len(unwanted) != 1 {
		t.Errorf("a machine that never had the job: %v, %v", unwanted, err)
	}
	if unwanted, err := w.tell(w.node2, unknown); err != nil || len(unwanted) != 1 {
		t.Errorf("a job that is not known: %v, %v", unwanted, err)
	}
	if list, err := w.read(w.alice1, &xosv1.ListUsageRequest{}); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestWhoMayReadUsage(t *testing.T) {
	w := newWorld(t, directory.Config{})
	begin := w.now
	for i := range 7 { // one a minute, every third of them bob's
		job := newJob(fmt.Sprintf("core-%d", i))
		who := w.alice1
		if job.Submitted = timestamppb.New(w.now); i%3 == 2 {
			job.Account, who = "bob@physics", w.bob1
		}
		if err := w.put(who, job); err != nil {
			t.Fatal(err)
		}
		job.Started = timestamppb.New(w.now)
		w.now = w.now.Add(time.Minute)
		if _, err := w.tell(w.node2, w.used(job, true)); err != nil {
			t.Fatal(err)
		}
	}
	user := func(a string, opts ...credtest.Option) context.Context { return w.as(w.ca.X509User(a, opts...)) }
	admin, other := user("eve@physics", credtest.Roles("admin")), user("mal@chemistry", credtest.Roles("admin"))
	root := rpc.WithPeer(context.Background(), rpc.Peer{Unix: true})
	at := func(minutes int) *timestamppb.Timestamp {
		return timestamppb.New(begin.Add(time.Duration(minutes) * time.Minute))
	}
	for _, tt := range []struct {
		name string
		who  context.Context
		req  *xosv1.ListUsageRequest
		want int
		kind xos.Kind
	}{
		{"alice", w.alice1, &xosv1.ListUsageRequest{}, 5, 0},
		{"alice at home", user("alice@physics"), &xosv1.ListUsageRequest{Vo: "physics", User: "alice"}, 5, 0},
		{"bob", w.bob1, &xosv1.ListUsageRequest{Limit: 1}, 2, 0},
		{"alice of bob", w.alice1, &xosv1.ListUsageRequest{User: "bob"}, 0, xos.Permission},
		{"alice of another VO", w.alice1, &xosv1.ListUsageRequest{Vo: "chemistry"}, 0, xos.Permission},
		{"an administrator", admin, &xosv1.ListUsageRequest{Limit: 3}, 7, 0},
		{"an administrator of bob", admin, &xosv1.ListUsageRequest{User: "bob"}, 2, 0},
		{"an administrator of another VO", admin, &xosv1.ListUsageRequest{Vo: "chemistry"}, 0, xos.Permission},
		{"another VO's administrator", other, &xosv1.ListUsageRequest{}, 0, 0},
		{"another VO's administrator of this", other, &xosv1.ListUsageRequest{Vo: "physics"}, 0, xos.Permission},
		{"another VO's administrator of bob", other, &xosv1.ListUsageRequest{User: "bob"}, 0, 0},
		{"reading on in another VO", other, &xosv1.ListUsageRequest{After: "usage/physics/0"}, 0, xos.Invalid},
		{"an administrator's delegated credential", w.as(w.ca.Delegated("eve@physics", "node1", credtest.Roles("admin"))), &xosv1.ListUsageRequest{}, 0, 0},
		{"a machine", w.node2, &xosv1.ListUsageRequest{}, 0, xos.Permission},
		{"root on the core", root, &xosv1.ListUsageRequest{Limit: 2}, 7, 0},
		{"root of a VO", root, &xosv1.ListUsageRequest{Vo: "chemistry"}, 0, 0},
		{"root of a user without a VO", root, &xosv1.ListUsageRequest{User: "bob"}, 0, xos.Invalid},
		{"another user on the core", rpc.WithPeer(context.Background(), rpc.Peer{Unix: true, UID: 5}), &xosv1.ListUsageRequest{}, 0, xos.Permission},
		{"a stranger", w.as(credtest.New(t).Delegated("alice@physics", "node1")), &xosv1.ListUsageRequest{}, 0, xos.Permission},
		{"since", admin, &xosv1.ListUsageRequest{Since: at(3)}, 5, 0},
		{"before", admin, &xosv1.ListUsageRequest{Before: at(3)}, 2, 0},
		{"between", w.alice1, &xosv1.ListUsageRequest{Since: at(2), Before: at(5), Limit: 1}, 2, 0},
		{"root since", root, &xosv1.ListUsageRequest{Since: at(3), Limit: 2}, 5, 0},
		{"never", admin, &xosv1.ListUsageRequest{Since: at(5), Before: at(2)}, 0, 0},
		{"a page too long", admin, &xosv1.ListUsageRequest{Limit: 1001}, 0, xos.Invalid},
		{"no name", admin, &xosv1.ListUsageRequest{User: "../x"}, 0, xos.Invalid},
	} {
		list, err := w.read(tt.who, tt.req)
		if tt.kind != 0 && !xos.Is(err, tt.kind) || tt.kind == 0 && err != nil || len(list) != tt.want {
			t.Errorf("%s: %d records, %v; want %d, %v", tt.name, len(list), err, tt.want, tt.kind)
		}
		if !slices.IsSortedFunc(list, func(a, b *xosv1.UsageRecord) int { return a.Until.AsTime().Compare(b.Until.AsTime()) }) {
			t.Errorf("%s: not by time", tt.name)
		}
	}
}

func TestOldUsageIsForgotten(t *testing.T) {
	w := newWorld(t, directory.Config{KeepUsage: 30 * 24 * time.Hour})
	for i := range 50 {
		job := w.ran(fmt.Sprintf("core-%d", i))
		if i == 45 {
			w.now = w.now.Add(31 * 24 * time.Hour)
		}
		if _, err := w.tell(w.node2, w.used(job, true)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.d.ForgetUsage(t.Context()); n != 45 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if list, err := w.read(w.alice1, &xosv1.ListUsageRequest{}); len(list) != 5 || err != nil {
		t.Errorf("%d are left, %v", len(list), err)
	}
	if n, err := w.d.ForgetUsage(t.Context()); n != 0 || err != nil {
		t.Errorf("again %d, %v", n, err)
	}
}

// TestStays: a machine tells of its own stays, each of which counts once, whatever
// comes late; whose it is does not change.
func TestStays(t *testing.T) {
	w := newWorld(t, directory.Config{})
	began := w.now
	stay := func(used int64, final bool) *xosv1.UsageRecord {
		return &xosv1.UsageRecord{Stay: "stay:0123456789abcdef0123456789abcdef", Account: "alice@physics", Credential: "77", Node: "node2", Logins: 2, Cgroup: 5,
			Submitted: timestamppb.New(began), Started: timestamppb.New(began), Until: timestamppb.New(w.now), Final: final, Executions: used}
	}
	put := func(r *xosv1.UsageRecord) {
		t.Helper()
		if unwanted, err := w.tell(w.node2, r); err != nil || len(unwanted) != 0 {
			t.Fatal(unwanted, err)
		}
	}
	put(stay(0, false))
	early := stay(0, false)
	w.now = w.now.Add(time.Minute)
	put(stay(3, false))
	put(early)
	if r := w.one(w.alice1); r.Executions != 3 || r.Final || r.Cgroup != 0 {
		t.Errorf("%v", r)
	}
	w.now = w.now.Add(time.Minute)
	anothers := stay(4, false)
	anothers.Account, anothers.Started = "carol@chemistry", timestamppb.New(w.now)
	put(anothers)
	w.now = w.now.Add(time.Minute)
	put(stay(9, true))
	put(stay(10, true))
	if r := w.one(w.alice1); r.Executions != 9 || !r.Final || r.Logins != 2 || r.Credential != "77" || !r.Started.AsTime().Equal(began) {
		t.Errorf("%v", r)
	}
	for name, bad := range map[string]func(*xosv1.UsageRecord){
		"of another machine": func(r *xosv1.UsageRecord) { r.Node = "node3" },
		"a job too":          func(r *xosv1.UsageRecord) { r.Job = "core-1" },
		"with a job's id":    func(r *xosv1.UsageRecord) { r.Stay = "core-1" },
		"another form":       func(r *xosv1.UsageRecord) { r.Stay = "stay:../../x" },
		"its id as a job's":  func(r *xosv1.UsageRecord) { r.Job, r.Stay = r.Stay, "" },
		"negative logins":    func(r *xosv1.UsageRecord) { r.Logins = -1 },
	} {
		r := stay(1, true)
		bad(r)
		if _, err := w.tell(w.node2, r); !xos.Is(err, xos.Invalid) && !xos.Is(err, xos.Permission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.tell(w.alice1, stay(1, true)); !xos.Is(err, xos.Permission) {
		t.Errorf("said by its user: %v", err)
	}
}

// TestManyStays: what one machine can fill the core with in a day is bounded, and
// stays that are known go on.
func TestManyStays(t *testing.T) {
	w := newWorld(t, directory.Config{})
	stay := func(n int) *xosv1.UsageRecord {
		at := timestamppb.New(w.now)
		return &xosv1.UsageRecord{Stay: fmt.Sprintf("stay:%032x", n), Account: "alice@physics", Node: "node2", Submitted: at, Started: at, Until: at}
	}
	if err := w.store.Update(t.Context(), func(txn kv.Txn) error {
		return txn.Put([]byte("aem/usage-stays/node2"), []byte(w.now.UTC().Format(time.DateOnly)+" 99999"))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tell(w.node2, stay(1)); err != nil {
		t.Error(err)
	}
	if _, err := w.tell(w.node2, stay(2)); !xos.Is(err, xos.TooLarge) {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.tell(w.node2, stay(1)); err != nil {
		t.Errorf("a known one: %v", err)
	}
	w.now = w.now.Add(24 * time.Hour)
	if _, err := w.tell(w.node2, stay(2)); err != nil {
		t.Errorf("on the next day: %v", err)
	}
}
