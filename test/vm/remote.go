package vm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/vm/wire"
)

// remote is this process's conversation with a machine's agent. It takes a port
// at the first request and holds it.
type remote struct {
	dir string

	mu     sync.Mutex
	client *http.Client
	lock   *os.File
}

// transport gives the client that all requests share.
func (r *remote) transport() *http.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		r.client = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx) },
			Protocols:   &protocols,
			// The port does not tell when the agent goes away.
			HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true, SendPingTimeout: 20 * time.Second, PingTimeout: time.Minute,
				MaxReceiveBufferPerConnection: 8 << 20, MaxReceiveBufferPerStream: 4 << 20},
		}}
	}
	return r.client
}

// dial opens a port and greets the agent. One that still serves a conversation
// which has broken off may need a second greeting: the first ends that, and is
// lost with it.
func (r *remote) dial(ctx context.Context) (net.Conn, error) {
	path, err := r.port()
	if err != nil {
		return nil, err
	}
	for patience := 3 * time.Second; ; patience *= 2 {
		conn, err := greet(ctx, path, patience)
		if err == nil || ctx.Err() != nil || patience > 20*time.Second {
			return conn, err
		}
	}
}

// rubbish ends a conversation that is in any state: it is longer than the rest
// of a frame can be, and no frame.
var rubbish = bytes.Repeat([]byte{0xff}, wire.LongestFrame+1024)

func greet(ctx context.Context, path string, patience time.Duration) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = conn.SetDeadline(deadline)
	nonce := rand.Text()
	if _, err := fmt.Fprintf(conn, "%s\n%s%s\n", rubbish, wire.Hello, nonce); err != nil {
		conn.Close()
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			conn.Close()
			return nil, fmt.Errorf("greeting the machine's agent: %w", err)
		}
		if strings.HasSuffix(string(line), nonce+"\n") {
			break
		}
	}
	_ = conn.SetDeadline(time.Time{})
	return &greeted{Conn: conn, in: in}, nil
}

// port takes one that no other process has.
func (r *remote) port() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock != nil {
		return strings.TrimSuffix(r.lock.Name(), ".lock"), nil
	}
	for i := range wire.Ports {
		path := filepath.Join(r.dir, wire.PortName(i))
		file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return "", err
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			r.lock = file
			return path, nil
		}
		file.Close()
	}
	return "", errors.New("all ports of the machine are in use by other processes")
}

func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
	if r.lock != nil {
		r.lock.Close()
		r.lock = nil
	}
}

// greeted is a connection whose first bytes have been read.
type greeted struct {
	net.Conn
	in *bufio.Reader
}

func (g *greeted) Read(p []byte) (int, error) { return g.in.Read(p) }
