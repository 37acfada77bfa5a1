package job

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// silence is how long a machine may be silent before a connection to it is
// given up: asked after half of it, broken after the other half.
const silence = 4 * time.Second

// peers are the machines spoken to: as this machine, over connections that are
// kept, or as a user, over one that is not, since her rights may end.
type peers struct {
	m       *Manager
	mu      sync.Mutex
	machine map[string]*http.Client // by service, node and address
}

func dial(cfg *tls.Config) *http.Client {
	c := rpc.TLSClient(cfg)
	if t, ok := c.Transport.(*http.Transport); ok {
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: silence / 2, PingTimeout: silence / 2}
	}
	return c
}

// asMachine gives the kept connection to a service.
func (p *peers) asMachine(s vom.Service, node xos.NodeID, address string) *http.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := string(s) + " " + string(node) + " " + address
	if c := p.machine[key]; c != nil {
		return c
	}
	if len(p.machine) > 1000 {
		for k, c := range p.machine { // any; it is made anew when needed
			c.CloseIdleConnections()
			delete(p.machine, k)
			break
		}
	}
	c := dial(p.m.Verifier.ClientTLSTo(p.m.Machine, s, node))
	p.machine[key] = c
	return c
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.machine {
		c.CloseIdleConnections()
	}
}

// asUser gives a connection for one errand; done must be called.
func (p *peers) asUser(ctx context.Context, a xos.Account, s vom.Service, node xos.NodeID) (c *http.Client, done func(), err error) {
	cred, err := p.m.Sessions.Credential(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	var show credential.Certificate = func() (*tls.Certificate, error) { return &cred.Certificate, nil }
	c = dial(p.m.Verifier.ClientTLSTo(show, s, node))
	return c, c.CloseIdleConnections, nil
}

// directory is the job directory, asked as this machine.
func (p *peers) directory() xosv1connect.JobDirectoryClient {
	core := p.m.Core()
	return xosv1connect.NewJobDirectoryClient(p.asMachine(vom.ServiceCore, "", core), "https://"+core, rpc.ClientOptions()...)
}

// directoryFor is the job directory, asked as a user.
func (p *peers) directoryFor(ctx context.Context, a xos.Account) (xosv1connect.JobDirectoryClient, func(), error) {
	c, done, err := p.asUser(ctx, a, vom.ServiceCore, "")
	if err != nil {
		return nil, nil, err
	}
	return xosv1connect.NewJobDirectoryClient(c, "https://"+p.m.Core(), rpc.ClientOptions()...), done, nil
}

// execution is a machine's execution service, asked as this machine.
func (p *peers) execution(node, address string) xosv1connect.ExecutionClient {
	return xosv1connect.NewExecutionClient(p.asMachine(vom.ServiceNode, xos.NodeID(node), address), "https://"+address, rpc.ClientOptions()...)
}

// executionFor is a machine's execution service, asked as a user.
func (p *peers) executionFor(ctx context.Context, a xos.Account, node, address string) (xosv1connect.ExecutionClient, func(), error) {
	c, done, err := p.asUser(ctx, a, vom.ServiceNode, xos.NodeID(node))
	if err != nil {
		return nil, nil, err
	}
	return xosv1connect.NewExecutionClient(c, "https://"+address, rpc.ClientOptions()...), done, nil
}
