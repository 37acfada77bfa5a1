package job

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/order"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/srds"
)

// maxFound is how many machines are enough to choose among.
const maxFound = 16

// query is what a machine must satisfy.
func query(spec *xosv1.JobSpec, vo xos.VOName) (srds.Query, error) {
	q := srds.Query{VO: vo}
	if spec.Node != "" {
		q.Ranges = append(q.Ranges, srds.Range{Attribute: "node", Texts: []string{spec.Node}})
	}
	least := func(attribute string, n float64) {
		q.Ranges = append(q.Ranges, srds.Range{Attribute: attribute, Min: &n})
	}
	if n := spec.Limits["memory"]; n > 0 {
		least("memory", float64(n))
	}
	if n := spec.Limits["cpus"]; n > 0 {
		least("cpus", float64(n)/1000)
	}
	if len(spec.Conditions) > 32 {
		return q, xos.Errorf(xos.TooLarge, "%d conditions are more than 32", len(spec.Conditions))
	}
	for _, c := range spec.Conditions {
		if !xos.ValidName(c.Attribute) || len(c.Texts) > 32 || c.Min == nil && c.Max == nil && len(c.Texts) == 0 {
			return q, xos.Errorf(xos.Invalid, "the condition on %.40q is malformed", c.Attribute)
		}
		q.Ranges = append(q.Ranges, srds.Range{Attribute: c.Attribute, Min: c.Min, Max: c.Max, Texts: c.Texts})
	}
	return q, nil
}

// rank puts the machines with the most room first; equal ones stay in the
// order in which they answered: the nearest.
func rank(found []srds.Attributes) {
	room := func(a srds.Attributes) float64 {
		return a.Number["cpus"] - max(a.Number["load"], a.Number["jobs"])
	}
	slices.SortStableFunc(found, func(a, b srds.Attributes) int {
		switch x, y := room(a), room(b); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
}

// place finds a machine and starts the job there. If it returns false the job
// has ended, or this process does.
func (j *managed) place(ctx context.Context) bool {
	job := j.record()
	began := j.m.Now()
	end := began.Add(j.m.cfg.Patience)
	q, err := query(job.Spec, j.account.VO)
	if err != nil {
		return j.refuse(err)
	}
	// A predecessor may have begun: what it chose comes first.
	if job.ExecutionNode != "" && job.ExecutionAddress != "" {
		err := j.start(ctx, srds.Attributes{Node: xos.NodeID(job.ExecutionNode), Address: job.ExecutionAddress})
		if err == nil {
			return true
		}
	}
	looking, done := j.until(func(job *xosv1.Job) bool { return ended(job) || job.KillWanted })
	defer done()
	// A machine may be too busy to answer in time: it gets twice the time at the next try.
	for window := j.m.cfg.Find; ; window *= 2 {
		found, refused, err := j.m.Resources.Find(looking, q, maxFound, window)
		if ctx.Err() != nil || ended(j.record()) {
			return false
		}
		refusals := map[string]error{}
		wait := err != nil || len(found) == 0 && j.silent(refused, began)
		rank(found)
		for _, a := range found {
			if j.record().KillWanted {
				break
			}
			err := j.start(ctx, a)
			if err == nil {
				return true
			}
			if ctx.Err() != nil {
				return false
			}
			refusals[string(a.Node)] = err
			wait = wait || xos.Is(err, xos.Unavailable)
		}
		if j.record().KillWanted {
			j.fail(xosv1.JobState_JOB_STATE_CANCELED, "killed before it ran")
			return false
		}
		if !wait || j.m.Now().After(end) {
			if err != nil {
				return j.refuse(err)
			}
			return j.refuse(explain(q, refused, refusals))
		}
		why := "no machine has answered yet"
		if err != nil || len(refusals) > 0 {
			why = reason(err, refusals)
		}
		j.setTrouble("waiting for the grid: " + why)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// named is how long the machine that the user named may say nothing while others
// answer. The name may be wrong.
const named = 3 * time.Second

// silent is whether those that matter have not been heard, which is no refusal.
func (j *managed) silent(refused map[string]int, began time.Time) bool {
	if len(refused) == 0 {
		return true
	}
	for attribute := range refused {
		if attribute != "node" {
			return false
		}
	}
	return j.m.Now().Before(began.Add(named))
}

func (j *managed) refuse(err error) bool {
	e := &xos.Error{Kind: xos.KindOf(err), Msg: err.Error()}
	if xe, ok := err.(*xos.Error); ok {
		e = xe
	}
	j.mu.Lock()
	j.refusal = e
	j.mu.Unlock()
	j.fail(xosv1.JobState_JOB_STATE_FAILED, e.Msg)
	return false
}

// start writes down where the job shall run, then orders its start.
func (j *managed) start(ctx context.Context, a srds.Attributes) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	if err := j.update(true, func(job *xosv1.Job) {
		job.ExecutionNode, job.ExecutionAddress = string(a.Node), a.Address
	}); err != nil {
		return err
	}
	if err := j.put(ctx); err != nil {
		return err
	}
	job := j.record()
	cred, err := j.m.Sessions.Credential(ctx, j.account)
	if err != nil {
		return err
	}
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(job.Spec)
	if err != nil {
		return err
	}
	s, err := order.Sign(cred.Certificate, cred.Identity, order.Terms{Job: xos.JobID(job.Id), Execution: a.Node, Spec: spec}, j.m.Now())
	if err != nil {
		return err
	}
	req := &xosv1.StartRequest{Order: s.Content, OrderSignature: s.Signature, OrderChain: s.Chain, Spec: spec, Stdin: j.stdin, Tty: j.tty, Rows: j.rows, Columns: j.cols}
	exec := j.m.peers.execution(string(a.Node), a.Address)
	var unit *xosv1.Job
	for try := 0; ; try++ {
		resp, err := exec.Start(ctx, connect.NewRequest(req))
		if err == nil {
			unit = resp.Msg.Job
			break
		}
		if xos.Is(err, xos.Exists) { // by an order before a restart
			resp, err := exec.UnitStatus(ctx, connect.NewRequest(&xosv1.UnitStatusRequest{Job: job.Id}))
			if err != nil {
				return err
			}
			unit = resp.Msg
			break
		}
		// An answer may be lost: the same order again does no harm. If that
		// does not help either, the unit, should there be one, is ended by the
		// record, which will give the job to another machine.
		if !xos.Is(err, xos.Unavailable) || try > 0 {
			return err
		}
	}
	j.setTrouble("")
	started := unit.Started
	if started == nil {
		started = timestamppb.New(j.m.Now())
	}
	return j.update(true, func(job *xosv1.Job) {
		job.State, job.Started = xosv1.JobState_JOB_STATE_RUNNING, started
	})
}

// explain says why no machine runs the job.
func explain(q srds.Query, refused map[string]int, refusals map[string]error) *xos.Error {
	if len(refusals) > 0 {
		kind := xos.Permission
		for _, err := range refusals {
			if !xos.Is(err, xos.Permission) {
				kind = xos.KindOf(err)
			}
		}
		return xos.Errorf(kind, "no machine took the job: %s", reason(nil, refusals))
	}
	total := 0
	var why []string
	for _, at := range slices.Sorted(maps.Keys(refused)) {
		total += refused[at]
		why = append(why, fmt.Sprintf("%d %s", refused[at], failing(q, at)))
	}
	if total == 0 {
		return xos.Errorf(xos.Unavailable, "no machine of the grid answered").WithHint("see whether the core can be reached: xos status")
	}
	return xos.Errorf(xos.Unavailable, "none of the %d machines that answered matches: %s", total, strings.Join(why, ", ")).
		WithHint("ask for less, see xsub --help")
}

// failing puts a condition that failed into words.
func failing(q srds.Query, attribute string) string {
	if attribute == "vo" {
		return "do not serve " + string(q.VO)
	}
	for _, r := range q.Ranges {
		if r.Attribute != attribute {
			continue
		}
		switch {
		case len(r.Texts) > 0 && attribute == "node":
			return "are not " + strings.Join(r.Texts, " or ")
		case len(r.Texts) > 0:
			return fmt.Sprintf("have another %s than %s", attribute, strings.Join(r.Texts, " or "))
		case r.Min != nil && r.Max != nil:
			return fmt.Sprintf("have not between %v and %v %s", *r.Min, *r.Max, attribute)
		case r.Min != nil:
			return fmt.Sprintf("have less than %v %s", *r.Min, attribute)
		case r.Max != nil:
			return fmt.Sprintf("have more than %v %s", *r.Max, attribute)
		}
	}
	return "lack " + attribute
}

func reason(err error, refusals map[string]error) string {
	var parts []string
	if err != nil {
		parts = append(parts, err.Error())
	}
	for _, node := range slices.Sorted(maps.Keys(refusals)) {
		parts = append(parts, node+": "+refusals[node].Error())
	}
	return strings.Join(parts, "; ")
}
