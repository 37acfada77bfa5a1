// Package wiretest gives tests of the modules something to talk to: a session
// service with a few people in memory, a server that says whatever a test
// wants, and an encoder of messages that shares nothing with the real one.
package wiretest

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
)

// Ids of the people and groups that Physics holds.
const (
	AliceUID   = 1879050001
	BobUID     = 1879050002
	ZoeUID     = 1879050003
	PhysicsGID = 1900000000
	HiggsGID   = 1900000001
	// AliceSub is the first of Alice's subordinate ids; nobody else has any.
	AliceSub = 2013265920
)

// Alice, Bob and Zoe are members of physics; Zoe was never here, so that only
// the service knows her.
var (
	Alice = wire.Passwd{Name: "alice@physics", UID: AliceUID, GID: AliceUID, Gecos: "Alice", Dir: "/home/xos/physics/alice", Shell: "/bin/sh"}
	Bob   = wire.Passwd{Name: "bob@physics", UID: BobUID, GID: BobUID, Gecos: "", Dir: "/home/xos/physics/bob", Shell: "/bin/bash"}
	Zoe   = wire.Passwd{Name: "zoe@physics", UID: ZoeUID, GID: ZoeUID, Gecos: "Zoe", Dir: "/home/xos/physics/zoe", Shell: "/bin/sh"}
)

// Physics is a snapshot of the VO physics.
func Physics() wire.Snapshot {
	return wire.Snapshot{
		VO: "physics", Generation: 1, GID: PhysicsGID,
		Users: []wire.SnapshotUser{
			{Passwd: Alice, Groups: []uint32{PhysicsGID, HiggsGID}},
			{Passwd: Bob, Groups: []uint32{PhysicsGID}},
		},
		Groups: []wire.SnapshotGroup{{Name: "physics", GID: PhysicsGID}, {Name: "physics:higgs", GID: HiggsGID}},
	}
}

// Service is a wire.Handler. Hooks that are nil refuse.
type Service struct {
	Principal func(wire.Peer, wire.PrincipalsRequest) (string, error)
	Auth      func(wire.Peer, wire.PAMAuthRequest) error
	Account   func(wire.Peer, wire.PAMRequest) (string, error)
	Open      func(wire.Peer, wire.PAMOpenRequest) (wire.PAMOpenReply, error)

	mu    sync.Mutex
	calls []string
}

var _ wire.Handler = (*Service)(nil)

// Serve starts the service at path until the test ends or stop is called,
// which waits for it.
func (s *Service) Serve(t testing.TB, path string) (stop func()) {
	t.Helper()
	l := listen(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := wire.Serve(ctx, l, s, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// Calls gives what was asked since the last time, such as "GetPwNam
// zoe@physics".
func (s *Service) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *Service) called(what, whom string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, what+" "+whom)
}

var errUnknown = xos.Errorf(xos.NotFound, "no such name")

func (s *Service) find(is func(wire.Passwd) bool) (wire.Passwd, error) {
	people := []wire.Passwd{Alice, Bob, Zoe}
	if i := slices.IndexFunc(people, is); i >= 0 {
		return people[i], nil
	}
	return wire.Passwd{}, errUnknown
}

// GetPwNam and the like answer anyone; the real service asks who it is.
func (s *Service) GetPwNam(_ context.Context, _ wire.Peer, a xos.Account) (wire.Passwd, error) {
	s.called("GetPwNam", a.String())
	return s.find(func(p wire.Passwd) bool { return p.Name == a.String() })
}

func (s *Service) GetPwUID(_ context.Context, _ wire.Peer, uid uint32) (wire.Passwd, error) {
	s.called("GetPwUID", "")
	return s.find(func(p wire.Passwd) bool { return p.UID == uid })
}

func (s *Service) GetGrNam(_ context.Context, _ wire.Peer, name string) (wire.Group, error) {
	s.called("GetGrNam", name)
	if name == "physics:higgs" {
		return wire.Group{Name: name, GID: HiggsGID, Members: []string{Alice.Name}}, nil
	}
	p, err := s.find(func(p wire.Passwd) bool { return p.Name == name })
	return wire.Group{Name: p.Name, GID: p.GID}, err
}

func (s *Service) GetGrGID(_ context.Context, _ wire.Peer, gid uint32) (wire.Group, error) {
	s.called("GetGrGID", "")
	p, err := s.find(func(p wire.Passwd) bool { return p.UID == gid })
	return wire.Group{Name: p.Name, GID: p.GID}, err
}

func (s *Service) InitGroups(_ context.Context, _ wire.Peer, a xos.Account) ([]uint32, error) {
	s.called("InitGroups", a.String())
	if _, err := s.find(func(p wire.Passwd) bool { return p.Name == a.String() }); err != nil {
		return nil, err
	}
	return []uint32{PhysicsGID}, nil
}

// SubIDs and SubIDOwner answer root and the members, as the real service does.
func (s *Service) SubIDs(_ context.Context, p wire.Peer, a xos.Account) (first, count uint32, err error) {
	s.called("SubIDs", a.String())
	if a.String() != Alice.Name || p.UID != 0 && p.UID != AliceUID && p.UID != BobUID {
		return 0, 0, errUnknown
	}
	return AliceSub, 65536, nil
}

func (s *Service) SubIDOwner(_ context.Context, p wire.Peer, id uint32) (uint32, error) {
	s.called("SubIDOwner", "")
	if id < AliceSub || id-AliceSub >= 65536 || p.UID != 0 && p.UID != AliceUID && p.UID != BobUID {
		return 0, errUnknown
	}
	return AliceUID, nil
}

func (s *Service) Principals(_ context.Context, p wire.Peer, r wire.PrincipalsRequest) (string, error) {
	s.called("Principals", r.Account.String())
	if s.Principal == nil {
		return "", xos.Errorf(xos.Permission, "nobody is let in")
	}
	return s.Principal(p, r)
}

func (s *Service) PAMAuth(_ context.Context, p wire.Peer, r wire.PAMAuthRequest) error {
	s.called("PAMAuth", r.Account.String())
	if s.Auth == nil {
		return xos.Errorf(xos.Permission, "nobody is let in")
	}
	return s.Auth(p, r)
}

func (s *Service) PAMAccount(_ context.Context, p wire.Peer, r wire.PAMRequest) (string, error) {
	s.called("PAMAccount", r.Account.String())
	if s.Account == nil {
		return "", xos.Errorf(xos.Permission, "the policy lets nobody in")
	}
	return s.Account(p, r)
}

func (s *Service) PAMOpen(_ context.Context, p wire.Peer, r wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
	s.called("PAMOpen", r.Account.String())
	if s.Open == nil {
		return wire.PAMOpenReply{}, xos.Errorf(xos.Permission, "the policy lets nobody in")
	}
	return s.Open(p, r)
}

func (s *Service) PAMClose(_ context.Context, _ wire.Peer, id xos.SessionID) error {
	s.called("PAMClose", string(id))
	return nil
}

func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return l
}
