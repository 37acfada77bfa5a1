package directory

import (
	"context"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
)

var _ xosv1connect.UsageHandler = (*Directory)(nil)

// Bounds of what one call carries.
const (
	maxPut      = 100
	defaultPage = 500
	maxPage     = 1000
)

// PutUsage implements UsageHandler. Who, what and where is taken from the job's
// own record: a machine says when it ran and how much it used. Of stays it is
// believed, about itself, who came.
func (d *Directory) PutUsage(ctx context.Context, req *connect.Request[xosv1.PutUsageRequest]) (*connect.Response[xosv1.PutUsageResponse], error) {
	c, err := d.caller(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case c.machine == nil:
		return nil, xos.Errorf(xos.Permission, "only a machine says what was used of it")
	case len(req.Msg.Records) > maxPut:
		return nil, xos.Errorf(xos.TooLarge, "%d records at once: want at most %d", len(req.Msg.Records), maxPut)
	}
	resp := &xosv1.PutUsageResponse{}
	for _, r := range req.Msg.Records {
		if err := usage.Check(r, d.now()); err != nil {
			return nil, err
		}
		if r.Node != string(c.machine.Node) {
			return nil, xos.Errorf(xos.Permission, "%s may not say what was used of %s", c.machine.Node, r.Node)
		}
		err := d.store.Update(ctx, func(txn kv.Txn) error {
			if r.Stay != "" {
				return d.putStay(txn, r)
			}
			return putUsage(txn, r)
		})
		if xos.Is(err, xos.NotFound) {
			resp.Unwanted = append(resp.Unwanted, r.Job)
		} else if err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(resp), nil
}

// putUsage keeps what a machine says of a job that was given to it; NotFound
// for another.
func putUsage(txn kv.Txn, r *xosv1.UsageRecord) error {
	old, err := loadUsage(txn, r.Job, r.Node)
	if err != nil {
		return err
	}
	base := old
	if base == nil {
		job, err := load(txn, xos.JobID(r.Job))
		if err != nil {
			return err
		}
		if job.ExecutionNode != r.Node {
			return xos.Errorf(xos.NotFound, "job %s is not %s's", r.Job, r.Node)
		}
		base = usage.Of(job, xos.NodeID(r.Node))
	}
	if base.Final {
		return nil
	}
	next := proto.CloneOf(r)
	next.Account, next.Credential, next.Name, next.Executable, next.Submitted = base.Account, base.Credential, base.Name, base.Executable, base.Submitted
	return saveUsage(txn, old, next)
}

// maxStays is how many stays one machine may begin to tell of in a day.
const maxStays = 100_000

// putStay keeps what a machine says of a stay there. Whose it is and when it
// began does not change any more.
func (d *Directory) putStay(txn kv.Txn, r *xosv1.UsageRecord) error {
	old, err := loadUsage(txn, r.Stay, r.Node)
	if err != nil {
		return err
	}
	next := proto.CloneOf(r)
	next.Cgroup = 0
	if old == nil {
		if err := d.countStay(txn, r.Node); err != nil {
			return err
		}
		return saveUsage(txn, nil, next)
	}
	if old.Final || usage.Before(next, old) {
		return nil
	}
	next.Account, next.Credential, next.Started, next.Submitted = old.Account, old.Credential, old.Started, old.Submitted
	if next.Until.AsTime().Before(next.Started.AsTime()) {
		return xos.Errorf(xos.Invalid, "%s cannot have ended before it began", r.Stay)
	}
	return saveUsage(txn, old, next)
}

// countStay bounds what a machine can fill the core with.
func (d *Directory) countStay(txn kv.Txn, node string) error {
	at, today := []byte("aem/usage-stays/"+node), d.now().UTC().Format(time.DateOnly)
	data, _, err := txn.Get(at)
	if err != nil {
		return err
	}
	n := 0
	if day, count, ok := strings.Cut(string(data), " "); ok && day == today {
		if n, err = strconv.Atoi(count); err != nil {
			return xos.Errorf(xos.Internal, "the count of stays on %s is damaged", node)
		}
	}
	if n >= maxStays {
		return xos.Errorf(xos.TooLarge, "%s has told of %d stays today: want at most so many", node, n)
	}
	return txn.Put(at, []byte(today+" "+strconv.Itoa(n+1)))
}

// owe makes a record of a job that has ended and ran somewhere, if there is
// none: should its machine never say what was used, it is not forgotten that it
// ran. It is part of the transaction that ends the job.
func owe(txn kv.Txn, job *xosv1.Job) error {
	if job.ExecutionNode == "" || job.Started == nil {
		return nil
	}
	old, err := loadUsage(txn, job.Id, job.ExecutionNode)
	if err != nil || old != nil {
		return err
	}
	r := usage.Of(job, xos.NodeID(job.ExecutionNode))
	if job.Ended.AsTime().After(job.Started.AsTime()) {
		r.Until = job.Ended
	}
	r.Incomplete = true
	if job.CpuMicros > 0 {
		usage.Count(r, usage.Unknown(), aem.Usage{CPU: time.Duration(job.CpuMicros) * time.Microsecond, CPUUser: time.Duration(job.CpuMicros) * time.Microsecond})
	}
	return saveUsage(txn, nil, r)
}

// ListUsage implements UsageHandler.
func (d *Directory) ListUsage(ctx context.Context, req *connect.Request[xosv1.ListUsageRequest]) (*connect.Response[xosv1.ListUsageResponse], error) {
	m := req.Msg
	vo, user, err := d.reader(ctx, xos.VOName(m.Vo), xos.UserID(m.User))
	if err != nil {
		return nil, err
	}
	size := int(m.Limit)
	switch {
	case m.Limit == 0:
		size = defaultPage
	case m.Limit < 0 || m.Limit > maxPage:
		return nil, xos.Errorf(xos.Invalid, "a page of %d records: want 1 to %d", m.Limit, maxPage)
	}
	since, before, err := period(m.Since, m.Before)
	if err != nil {
		return nil, err
	}
	resp := &xosv1.ListUsageResponse{}
	err = d.store.View(ctx, func(txn kv.Txn) error {
		resp.Records, resp.After, err = listUsage(txn, vo, user, since, before, m.After, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// period reads bounds of time; zero for none.
func period(since, before *timestamppb.Timestamp) (from, to time.Time, err error) {
	for _, b := range []struct {
		at *timestamppb.Timestamp
		to *time.Time
	}{{since, &from}, {before, &to}} {
		if b.at == nil {
			continue
		}
		if err := b.at.CheckValid(); err != nil {
			return from, to, xos.Errorf(xos.Invalid, "a bound is no time: %v", err)
		}
		*b.to = b.at.AsTime()
	}
	return from, to, nil
}

// reader says of which VO and user the caller sees the records, if she may see
// those that she wants: "" is all of them.
func (d *Directory) reader(ctx context.Context, vo xos.VOName, user xos.UserID) (xos.VOName, xos.UserID, error) {
	if vo != "" && !xos.ValidName(string(vo)) || user != "" && !xos.ValidName(string(user)) {
		return "", "", xos.Errorf(xos.Invalid, "%.80q is no user, or %.80q no VO", user, vo)
	}
	if user != "" && vo == "" {
		vo = "?" // a user is somebody in one VO
	}
	if p := rpc.PeerFrom(ctx); p.Unix {
		switch {
		case p.UID != 0:
			return "", "", xos.Errorf(xos.Permission, "only root may read here what all VOs used")
		case vo == "?":
			return "", "", xos.Errorf(xos.Invalid, "say of which VO %s is", user).WithHint("--vo VO")
		}
		return vo, user, nil
	}
	c, err := d.caller(ctx)
	if err != nil {
		return "", "", err
	}
	if c.user == nil {
		return "", "", xos.Errorf(xos.Permission, "a machine reads what was used of it from its own ledger")
	}
	own := c.user.Account
	if vo != "" && vo != "?" && vo != own.VO {
		return "", "", xos.Errorf(xos.Permission, "%s may not see what other VOs use", own)
	}
	if vom.Administers(*c.user) && c.leaving == nil {
		return own.VO, user, nil
	}
	if user != "" && user != own.User {
		return "", "", xos.Errorf(xos.Permission, "%s does not administer %s, and sees what she used herself", own, own.VO).
			WithHint("administrators have the role %s", vom.RoleAdmin)
	}
	return own.VO, own.User, nil
}
