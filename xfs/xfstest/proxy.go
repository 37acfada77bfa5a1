package xfstest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a network between two services that a test can disturb.
type Proxy struct {
	target string
	l      net.Listener
	done   sync.WaitGroup

	mu      sync.Mutex
	cond    *sync.Cond // of mu: stalled or closed have changed
	pairs   map[*pair]bool
	refuse  bool
	stalled bool
	closed  bool
	budget  int64 // bytes until all is broken; -1: no end
}

type pair struct{ client, server net.Conn }

// NewProxy listens on the loopback and passes everything on to target until
// the test's end.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, l: l, pairs: map[*pair]bool{}, budget: -1}
	p.cond = sync.NewCond(&p.mu)
	p.done.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.done.Wait()
	})
	return p
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.l.Addr().String() }

// Connections is how many there are now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// Break closes what is connected; new connections pass.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breakAll()
}

func (p *Proxy) breakAll() {
	for c := range p.pairs {
		c.client.Close()
		c.server.Close()
	}
	p.cond.Broadcast()
}

// Cut closes what is connected and whatever comes, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = true
	p.breakAll()
}

// BreakAfter breaks, in the middle of whatever it is, when n more bytes have
// passed, in both directions together.
func (p *Proxy) BreakAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = n
}

// Stall keeps all connections and passes nothing, until Heal.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = true
}

// HalfClose ends one direction of what is connected: towards the server, or
// towards the client.
func (p *Proxy) HalfClose(server bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		conn := c.client
		if server {
			conn = c.server
		}
		conn.(*net.TCPConn).CloseWrite()
	}
}

// Heal ends all disturbance.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.stalled, p.budget = false, false, -1
	p.cond.Broadcast()
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		c := &pair{client, server}
		p.mu.Lock()
		refused := p.refuse || p.closed
		if !refused {
			p.pairs[c] = true
		}
		p.mu.Unlock()
		if refused {
			client.Close()
			server.Close()
			continue
		}
		p.done.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { p.pass(c, server, client) })
			both.Go(func() { p.pass(c, client, server) })
			both.Wait()
			client.Close()
			server.Close()
			p.mu.Lock()
			delete(p.pairs, c)
			p.mu.Unlock()
		})
	}
}

// pass copies one direction; its end is passed on too.
func (p *Proxy) pass(c *pair, to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		n = p.admit(c, n)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err == io.EOF {
			to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// admit waits while the proxy stalls, and says how many of n bytes may pass.
func (p *Proxy) admit(c *pair, n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled && !p.closed && !p.refuse {
		p.cond.Wait()
	}
	if p.budget < 0 {
		return n
	}
	n = int(min(int64(n), p.budget))
	if p.budget -= int64(n); p.budget == 0 {
		p.budget = -1
		go p.Break() // after these bytes
	}
	return n
}
