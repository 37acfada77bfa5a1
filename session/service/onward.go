package service

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/agent"
	"github.com/xtreemos/xos/vom/credential"
)

// agentDir, below Config.Run, has the sockets of sessions' ssh-agents: a
// directory for each VO, in it one for each account, which her sessions share
// as they share her home and credential.
const agentDir = "agent"

// onwardFile, in the directory of a credential, is what her sessions go on with
// to other machines. Root alone reads it.
const onwardFile = "onward.json"

// onward is a session's OpenSSH certificate and its key.
type onward struct {
	key  ed25519.PrivateKey
	cert *ssh.Certificate // nil: none yet
}

type savedOnward struct {
	Seed, Certificate []byte
}

func newOnward() (*onward, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return &onward{key: key}, err
}

// keepOnward keeps what the core certified; "" takes the last one away.
func (s *Service) keepOnward(p *person, on *onward, line string) error {
	if on == nil {
		return nil
	}
	next := &onward{key: on.key}
	if line != "" {
		cert, err := credential.ParseSSH([]byte(line))
		if err != nil {
			return err
		}
		id, err := s.Verifier.SSH(cert, p.account.String())
		if err != nil {
			return err
		}
		pub, err := ssh.NewPublicKey(on.key.Public())
		if err != nil {
			return err
		}
		if id.Node != s.cfg.Node || string(cert.Key.Marshal()) != string(pub.Marshal()) {
			return xos.Errorf(xos.Internal, "the core certified a session of %q, on another key or machine", id.Node)
		}
		next.cert = cert
	}
	return s.setOnward(p, next)
}

func (s *Service) setOnward(p *person, next *onward) error {
	saved := savedOnward{Seed: next.key.Seed()}
	if next.cert != nil {
		saved.Certificate = next.cert.Marshal()
	}
	dir := s.credentialDir(p.uid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return xos.Errorf(xos.Internal, "keeping a session's certificate: %w", err)
	}
	if err := writeRecord(filepath.Join(dir, onwardFile), saved); err != nil {
		return err
	}
	s.mu.Lock()
	p.onward = next
	s.mu.Unlock()
	return nil
}

// dropOnward takes a session's certificate away: the VO does not agree any more.
func (s *Service) dropOnward(p *person, why error) {
	s.mu.Lock()
	on := p.onward
	p.terms.Refused = why.Error()
	s.mu.Unlock()
	if on == nil || on.cert == nil {
		return
	}
	if err := s.setOnward(p, &onward{key: on.key}); err != nil {
		s.Log.Error("removing a session's certificate", "account", p.account, "error", err)
	}
}

// loadOnward reads what setOnward has kept; nil if there is none.
func (s *Service) loadOnward(uid uint32, a xos.Account) *onward {
	data, err := os.ReadFile(filepath.Join(s.credentialDir(uid), onwardFile))
	if err != nil {
		return nil
	}
	var saved savedOnward
	if json.Unmarshal(data, &saved) != nil || len(saved.Seed) != ed25519.SeedSize {
		return nil
	}
	on := &onward{key: ed25519.NewKeyFromSeed(saved.Seed)}
	if len(saved.Certificate) > 0 {
		cert, err := credential.ParseSSH(saved.Certificate)
		if err != nil {
			return nil
		}
		if id, err := credential.FromSSH(cert); err == nil && id.Account == a && id.Node == s.cfg.Node {
			on.cert = cert
		}
	}
	return on
}

// served is a running agent.
type served struct {
	stop   context.CancelFunc
	socket string
}

// identity is what a person's agent has now: nothing without a session, and
// nothing that would be refused elsewhere.
func (s *Service) identity(p *person) (agent.Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.onward == nil || p.onward.cert == nil || s.newest(p.account) == nil || s.Now().Unix() >= int64(p.onward.cert.ValidBefore) {
		return agent.Identity{}, false
	}
	return agent.Identity{Certificate: p.onward.cert, Key: p.onward.key}, true
}

func (s *Service) agentSocket(p *person) string {
	return filepath.Join(s.cfg.Run, agentDir, string(p.account.VO), strconv.FormatUint(uint64(p.uid), 10))
}

// serveAgent has a person's sessions served by an agent, and gives its socket;
// "" if that cannot be made: a login goes on without. mu is held.
func (s *Service) serveAgent(p *person) string {
	if run := s.agents[p.account]; run != nil {
		return run.socket
	}
	group, ok := s.Accounts.Group(string(p.account.VO))
	if !ok || s.ctx.Err() != nil {
		return ""
	}
	socket := s.agentSocket(p)
	l, err := agent.Listen(socket, p.uid, group.ID)
	if err != nil {
		s.Log.Error("a session's ssh-agent", "account", p.account, "error", err)
		return ""
	}
	ctx, stop := context.WithCancel(s.ctx)
	s.agents[p.account] = &served{stop, socket}
	a := agent.New(p.uid, p.account, func() (agent.Identity, bool) { return s.identity(p) }, s.Log)
	s.work.Go(func() {
		if err := a.Serve(ctx, l); err != nil && !errors.Is(err, net.ErrClosed) {
			s.Log.Error("a session's ssh-agent", "account", p.account, "error", err)
		}
	})
	return socket
}

// stopAgent ends a person's agent, or takes away what a predecessor's left.
func (s *Service) stopAgent(p *person) {
	s.mu.Lock()
	run := s.agents[p.account]
	delete(s.agents, p.account)
	s.mu.Unlock()
	if run != nil {
		run.stop()
	}
	if err := os.Remove(s.agentSocket(p)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Error("removing a session's ssh-agent", "account", p.account, "error", err)
	}
}
