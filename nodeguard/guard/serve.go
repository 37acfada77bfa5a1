package guard

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard"
)

var _ xosv1connect.GuardHandler = (*Guard)(nil)

// against says what each measure is for; a controller's name follows "controller".
var against = map[string]string{
	"accounting": "use of this machine that nobody knows of",
	"cgroup":     "jobs that cannot be told apart or ended",
	"controller": "one job or VO that eats the machine",
	"limits":     "one account's sessions that eat the machine",
	"hidepid":    "seeing others' processes",
	"network":    "reaching another VO's ports on this machine",
	"devices":    "devices that its VO was not given, and shares with others",
	"ipc":        "shared memory, semaphores and queues of others",
	"session":    "others' /tmp, /dev/shm, homes and logins",
	"lsm":        "what level C leaves open, and rights gained within a VO",
}

func measures(features []nodeguard.Feature) []*xosv1.Measure {
	var list []*xosv1.Measure
	for _, f := range features {
		kind, _, _ := strings.Cut(f.Name, " ")
		list = append(list, &xosv1.Measure{Name: f.Name, Have: f.Have, Why: f.Why, Against: against[kind]})
	}
	return list
}

// GuardStatus implements GuardHandler.
func (g *Guard) GuardStatus(ctx context.Context, _ *connect.Request[xosv1.GuardStatusRequest]) (*connect.Response[xosv1.GuardStatusResponse], error) {
	p := rpc.PeerFrom(ctx)
	if !p.Unix {
		return nil, xos.Errorf(xos.Permission, "this is for the machine's own users")
	}
	level, features := g.Level()
	resp := &xosv1.GuardStatusResponse{Level: string(level), Measures: measures(features)}
	if p.UID == 0 { // what others do is not everybody's business
		names, counts, err := g.Counts()
		if err != nil {
			return nil, err
		}
		for i, name := range names {
			resp.Counts = append(resp.Counts, &xosv1.GuardCount{What: name, Count: counts[i]})
		}
		if resp.Vos, err = g.refusals(); err != nil {
			return nil, err
		}
		resp.Policies = g.policyList()
	}
	return connect.NewResponse(resp), nil
}

// GuardTest implements GuardHandler.
func (g *Guard) GuardTest(ctx context.Context, _ *connect.Request[xosv1.GuardTestRequest]) (*connect.Response[xosv1.GuardTestResponse], error) {
	if p := rpc.PeerFrom(ctx); !p.Unix || p.UID != 0 {
		return nil, xos.Errorf(xos.Permission, "only root may test this machine's isolation").WithHint("run it with sudo")
	}
	results := g.Test()
	resp := &xosv1.GuardTestResponse{Passed: true, Results: measures(results)}
	for _, r := range results {
		resp.Passed = resp.Passed && r.Have
	}
	return connect.NewResponse(resp), nil
}
