// Package agent is the ssh-agent of a grid account's sessions on one machine
// (draft-ietf-sshm-ssh-agent; PROTOCOL.agent of OpenSSH). It has one identity,
// the session's OpenSSH certificate, whose key never leaves xos-node, and signs
// one thing with it: that the account logs in somewhere by ssh. Whatever else a
// process of the user asks, or one that got hold of the socket, is refused: to
// add or remove keys, to forward, to sign anything else.
package agent

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// Messages of the protocol.
const (
	msgFailure           = 5
	msgRequestIdentities = 11
	msgIdentitiesAnswer  = 12
	msgSignRequest       = 13
	msgSignResponse      = 14
)

const (
	// maxMessage holds a request to sign: the certificate twice.
	maxMessage = 64 << 10
	// maxConns of one account; more are closed at once.
	maxConns = 32
	// idle is how long a client may be silent.
	idle = 2 * time.Minute
)

// Identity is what the agent has.
type Identity struct {
	Certificate *ssh.Certificate
	Key         ed25519.PrivateKey
}

// Agent serves one account's socket.
type Agent struct {
	uid      uint32
	account  xos.Account
	identity func() (Identity, bool)
	log      *slog.Logger

	mu    sync.Mutex
	conns map[net.Conn]bool
	work  sync.WaitGroup
}

// New makes an agent that answers processes of uid alone, as the kernel names
// them. identity is asked at each request; false: there is none now.
func New(uid uint32, a xos.Account, identity func() (Identity, bool), log *slog.Logger) *Agent {
	return &Agent{uid: uid, account: a, identity: identity, log: log, conns: map[net.Conn]bool{}}
}

// Serve answers on l until ctx ends or l is closed. It closes l.
func (a *Agent) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer a.work.Wait()
	defer a.closeAll()
	defer l.Close()
	for {
		c, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Out of descriptors, most likely: others need theirs.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		if uid, err := peer(c); err != nil || uid != a.uid {
			a.log.Warn("a session's ssh-agent was asked by another user", "account", a.account, "uid", uid, "error", err)
			c.Close()
			continue
		}
		a.mu.Lock()
		full := len(a.conns) >= maxConns
		if !full {
			a.conns[c] = true
		}
		a.mu.Unlock()
		if full {
			c.Close()
			continue
		}
		a.work.Go(func() { a.converse(c) })
	}
}

func (a *Agent) closeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.Close()
	}
}

// peer is the user whose process made a connection.
func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return cred.Uid, nil
}

func (a *Agent) converse(c net.Conn) {
	defer func() {
		c.Close()
		a.mu.Lock()
		delete(a.conns, c)
		a.mu.Unlock()
	}()
	r := bufio.NewReader(c)
	for {
		c.SetDeadline(time.Now().Add(idle))
		request, err := read(r)
		if err != nil {
			return
		}
		answer := a.answer(request)
		if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func read(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxMessage {
		return nil, xos.Errorf(xos.TooLarge, "an agent's request of %d bytes", n)
	}
	request := make([]byte, n)
	_, err := io.ReadFull(r, request)
	return request, err
}

// answer gives the reply to a request, type first.
func (a *Agent) answer(request []byte) []byte {
	failure := []byte{msgFailure}
	if len(request) == 0 {
		return failure
	}
	id, ok := a.identity()
	switch request[0] {
	case msgRequestIdentities:
		if len(request) != 1 {
			return failure
		}
		if !ok {
			return append([]byte{msgIdentitiesAnswer}, 0, 0, 0, 0)
		}
		return append([]byte{msgIdentitiesAnswer}, ssh.Marshal(struct {
			N       uint32
			Blob    []byte
			Comment string
		}{1, id.Certificate.Marshal(), a.account.String() + " (session)"})...)
	case msgSignRequest:
		var q struct {
			Blob, Data []byte
			Flags      uint32
		}
		if !ok || ssh.Unmarshal(request[1:], &q) != nil {
			return failure
		}
		if string(q.Blob) != string(id.Certificate.Marshal()) || !isLogin(q.Data, a.account, q.Blob) {
			return failure
		}
		sig := ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(id.Key, q.Data)})
		return append([]byte{msgSignResponse}, ssh.Marshal(struct{ Signature []byte }{sig})...)
	}
	return failure
}
