// Package userdb answers systemd's question about users and groups, the varlink
// interface io.systemd.UserDatabase, for the grid's accounts of this machine:
// with it "userdbctl user alice@physics" works, and what else asks
// systemd-userdbd or looks into /run/systemd/userdb.
//
// It answers from the snapshots that xos-node writes for the NSS module
// (session/wire), and from nothing else: it needs no daemon, keeps no state and
// gives out no uid. What the snapshots do not have does not exist.
//
// nss-systemd, where a machine has it, asks every socket in that directory for
// every name that /etc/passwd does not have, and waits for the slowest. So
// nothing here waits for anything but its own disk in memory, and names and ids
// that cannot be the grid's are answered from the question alone.
//
// The interface and its records are described by systemd at
// https://systemd.io/USER_GROUP_API, https://systemd.io/USER_RECORD and
// https://systemd.io/GROUP_RECORD, the messages at https://varlink.org.
package userdb

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/xtreemos/xos"
)

const (
	// Service is the name of this service among systemd's: that of its socket.
	Service = "io.xtreemos.UserDatabase"
	// SocketPath is where systemd's programs look for it.
	SocketPath = "/run/systemd/userdb/" + Service
)

// Limits on simultaneous connections: one user's processes cannot shut out the
// others', nor all of them root's, systemd-userdbd's among them. One too many
// is closed unheard, which a client takes as "this service does not know".
const (
	perUser  = 16
	allUsers = 256
	perRoot  = 512
)

// Config says where things are. Snapshots is the directory of the snapshots,
// Socket the path to listen at, whose directory must be there; Version is told
// to who asks.
type Config struct {
	Snapshots, Socket, Version string
}

// Server is the service.
type Server struct {
	cfg Config
	log *slog.Logger
	l   *net.UnixListener

	wait  sync.WaitGroup
	mu    sync.Mutex // held to count only
	all   int        // connections of others than root
	users map[uint32]int
}

// New listens at cfg.Socket, in place of a socket that a former process has left
// there. Close it, or Run it.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	st, err := os.Lstat(cfg.Socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, xos.Errorf(xos.Unavailable, "looking for a former socket: %w", err)
	case st.Mode().Type() != fs.ModeSocket:
		return nil, xos.Errorf(xos.Conflict, "%s is there and is no socket", cfg.Socket)
	default:
		if err := os.Remove(cfg.Socket); err != nil {
			return nil, xos.Errorf(xos.Unavailable, "removing a former socket: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Dir(cfg.Socket)); err != nil {
		return nil, xos.Errorf(xos.NotSupported, "systemd serves no user database here: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket, Net: "unix"})
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listening: %w", err)
	}
	if err := os.Chmod(cfg.Socket, 0o666); err != nil {
		l.Close()
		return nil, xos.Errorf(xos.Unavailable, "opening the socket to all: %w", err)
	}
	return &Server{cfg: cfg, log: log, l: l, users: map[uint32]int{}}, nil
}

// Close removes the socket.
func (s *Server) Close() error { return s.l.Close() }

// Run answers until ctx ends, and removes the socket then. It returns when the
// last connection is closed.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wait.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { s.l.Close() })
	for {
		c, err := s.l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return xos.Errorf(xos.Unavailable, "the socket was closed: %w", err)
		}
		if err != nil { // out of descriptors or memory: others may free some
			s.log.Warn("accepting a connection", "error", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		s.accept(ctx, c)
	}
}

func (s *Server) accept(ctx context.Context, c *net.UnixConn) {
	uid, err := peerOf(c)
	if err != nil || !s.enter(uid) {
		c.Close()
		return
	}
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		defer s.leave(uid)
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		s.converse(c, uid)
	}()
}

func (s *Server) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case uid == 0 && s.users[0] >= perRoot:
		return false
	case uid != 0 && (s.users[uid] >= perUser || s.all >= allUsers):
		return false
	case uid != 0:
		s.all++
	}
	s.users[uid]++
	return true
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uid != 0 {
		s.all--
	}
	if s.users[uid]--; s.users[uid] == 0 {
		delete(s.users, uid)
	}
}
