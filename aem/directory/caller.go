package directory

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// caller is who asks: a user through a machine that acts for her, or a machine
// for itself. Exactly one is set.
type caller struct {
	user    *vom.Identity
	machine *vom.Machine
	// leaving says why a user may attend to her jobs, and begin none.
	leaving error
}

// caller verifies the client's certificate, at each call anew: connections
// live longer than rights.
func (d *Directory) caller(ctx context.Context) (caller, error) {
	chain := rpc.PeerFrom(ctx).Chain
	if len(chain) == 0 {
		return caller{}, xos.Errorf(xos.Permission, "the job directory needs a certificate")
	}
	if _, err := credential.MachineFromX509(chain[0]); err == nil {
		m, err := d.verify.Machine(chain)
		if err != nil {
			return caller{}, err
		}
		if m.Service != vom.ServiceNode {
			return caller{}, xos.Errorf(xos.Permission, "service %q has nothing to do with jobs", m.Service)
		}
		return caller{machine: &m}, nil
	}
	id, leaving := d.verify.X509(chain)
	if leaving != nil {
		var err error
		if id, err = d.verify.X509Running(chain); err != nil {
			return caller{}, err
		}
	}
	return caller{user: &id, leaving: leaving}, nil
}

// sees reports whether the caller may know of a job: her own, or one that the
// machine submitted or runs.
func (c caller) sees(job *xosv1.Job) bool {
	if c.user != nil {
		return job.Account == c.user.Account.String()
	}
	n := string(c.machine.Node)
	return job.SubmitNode == n || job.ExecutionNode == n
}

// find loads a job; one that the caller may not know of is not there.
func (c caller) find(txn kv.Txn, id string) (*xosv1.Job, error) {
	job, err := load(txn, xos.JobID(id))
	if err != nil {
		return nil, err
	}
	if !c.sees(job) {
		return nil, xos.Errorf(xos.NotFound, "there is no job %.80s", id)
	}
	return job, nil
}

// listed gives the index to read: a user's own, or a machine's.
func (c caller) listed(node string) ([]byte, error) {
	if c.user != nil {
		return userPrefix(c.user.Account), nil
	}
	if node != "" && node != string(c.machine.Node) {
		return nil, xos.Errorf(xos.Permission, "%s may not list the jobs of %.40q", c.machine.Node, node)
	}
	return nodePrefix(string(c.machine.Node)), nil
}

// mayCreate: a user, on the machine that her credential was delegated to.
func (c caller) mayCreate(job *xosv1.Job) error {
	switch {
	case c.user == nil:
		return xos.Errorf(xos.Permission, "a machine may not submit jobs")
	case c.leaving != nil:
		return c.leaving
	case c.user.Node == "" || job.SubmitNode != string(c.user.Node):
		return xos.Errorf(xos.Permission, "the credential is delegated to %q, the job submitted on %.40q", c.user.Node, job.SubmitNode)
	case job.Account != c.user.Account.String():
		return xos.Errorf(xos.Permission, "%s may not submit a job for %.80q", c.user.Account, job.Account)
	case job.State != xosv1.JobState_JOB_STATE_NEW:
		return xos.Errorf(xos.Invalid, "job %s is not new", job.Id)
	case job.Submitted == nil || job.Spec == nil:
		return xos.Errorf(xos.Invalid, "job %s does not say what was submitted, and when", job.Id)
	}
	return nil
}

// replace gives the record that follows old if the caller wants job: what was
// submitted stays, a wish to kill stays, an end is the end.
func (c caller) replace(old, job *xosv1.Job) (*xosv1.Job, error) {
	if !c.sees(old) {
		return nil, xos.Errorf(xos.NotFound, "there is no job %s", old.Id)
	}
	if job.Epoch == 0 {
		return nil, xos.Errorf(xos.Exists, "job %s exists", old.Id)
	}
	if c.machine == nil {
		return nil, xos.Errorf(xos.Permission, "a job's record is kept by its machines")
	}
	if job.Account != old.Account || job.SubmitNode != old.SubmitNode || !proto.Equal(job.Spec, old.Spec) || !proto.Equal(job.Submitted, old.Submitted) {
		return nil, xos.Errorf(xos.Permission, "what was submitted as job %s cannot be changed", old.Id)
	}
	next := proto.CloneOf(job)
	next.Epoch, next.Credential = old.Epoch, old.Credential
	next.KillWanted = old.KillWanted || job.KillWanted
	if proto.Equal(next, old) {
		return next, nil
	}
	switch {
	case job.Epoch != old.Epoch:
		return nil, xos.Errorf(xos.Conflict, "job %s was changed meanwhile", old.Id)
	case ended(old):
		return nil, xos.Errorf(xos.Conflict, "job %s has ended", old.Id)
	case job.ExecutionNode != old.ExecutionNode && string(c.machine.Node) != old.SubmitNode:
		return nil, xos.Errorf(xos.Permission, "only %s decides where job %s runs", old.SubmitNode, old.Id)
	case ended(job) && job.Ended == nil:
		return nil, xos.Errorf(xos.Invalid, "job %s does not say when it ended", old.Id)
	}
	return next, nil
}
