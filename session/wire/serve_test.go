package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
	"github.com/xtreemos/xos/test/need"
)

// ask sends raw bytes and reads all that comes back.
func ask(t testing.TB, path string, request []byte) []byte {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write(request)
	b, _ := io.ReadAll(c)
	return b
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := &wiretest.Service{
		Principal: func(_ wire.Peer, r wire.PrincipalsRequest) (string, error) { return r.KeyType + r.Key, nil },
	}
	s.Serve(t, path)
	F, M := wiretest.Fields, wiretest.Message
	alice := F("alice@physics", wiretest.AliceUID, wiretest.AliceUID, "Alice", "/home/xos/physics/alice", "/bin/sh")
	unknown := F("no such name")
	for _, c := range []struct {
		name   string
		op     uint16
		fields []byte
		want   []byte // nil: closed without a word
	}{
		{"user", 1, F("alice@physics"), M(1, 0, alice)},
		{"uid", 2, F(wiretest.AliceUID), M(2, 0, alice)},
		{"group", 3, F("physics:higgs"), M(3, 0, F("physics:higgs", wiretest.HiggsGID, []string{"alice@physics"}))},
		{"private group", 4, F(wiretest.BobUID), M(4, 0, F("bob@physics", wiretest.BobUID, []string{}))},
		{"groups", 5, F("alice@physics"), M(5, 0, F([]int{wiretest.PhysicsGID}))},
		{"principal", 6, F("alice@physics", "t", "k"), M(6, 0, F("tk"))},
		{"stranger", 1, F("mallory@physics"), M(1, 1, unknown)},
		{"local name", 1, F("root"), M(1, 1, unknown)},
		{"reserved name", 1, F("root@physics"), M(1, 1, unknown)},
		{"long name", 1, F(strings.Repeat("a", 200) + "@physics"), M(1, 1, unknown)},
		{"unicode", 1, F("älice@physics"), M(1, 1, unknown)},
		{"newline", 1, F("alice\n@physics"), M(1, 1, unknown)},
		{"principal for a bad name", 6, F("root@physics", "t", "k"), M(6, 1, unknown)},
		{"root's uid", 2, F(0), M(2, 1, F("0 is no grid id"))},
		{"NUL", 1, F("alice\x00@physics"), M(1, 3, F("malformed fields"))},
		{"more than the fields", 1, append(F("alice@physics"), 0), M(1, 3, F("malformed fields"))},
		{"no fields", 1, nil, M(1, 3, F("malformed fields"))},
		{"string beyond the end", 1, F(1 << 30), M(1, 3, F("malformed fields"))},
		{"unknown op", 99, nil, M(99, 5, F("request 99 is unknown here: the module is newer than xos-node"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ask(t, path, wiretest.Message(c.op, 0, c.fields))); diff != "" {
				t.Error(diff)
			}
		})
	}
	big := wiretest.Message(1, 0, nil)
	binary.LittleEndian.PutUint32(big[8:], 65537)
	newer := wiretest.Message(1, 0, nil)
	newer[4] = 2
	for name, b := range map[string][]byte{
		"too long": big, "another version": newer, "no protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"a status": wiretest.Message(1, 1, F("alice@physics")),
	} {
		if got := ask(t, path, b); len(got) != 0 {
			t.Errorf("%s was answered: %q", name, got)
		}
	}
}

// silent sends half a request and waits.
func TestServeSilentClient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	new(wiretest.Service).Serve(t, path)
	start := time.Now()
	if got := ask(t, path, wiretest.Message(1, 0, wiretest.Fields("alice@physics"))[:20]); len(got) != 0 {
		t.Errorf("half a request was answered: %q", got)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a silent client was kept for %v", d)
	}
}

// TestServeEnds: Serve returns though clients and handlers are still there.
func TestServeEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stop := new(wiretest.Service).Serve(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the connection is still there: %v", err)
	}
}

// badHandler has a defect in each method.
type badHandler struct{ wiretest.Service }

func (*badHandler) GetPwNam(context.Context, wire.Peer, xos.Account) (wire.Passwd, error) {
	return wire.Passwd{Name: "alice@physics", UID: 0, GID: 0}, nil
}

func (*badHandler) InitGroups(context.Context, wire.Peer, xos.Account) ([]uint32, error) {
	return nil, xos.Errorf(xos.Internal, "secret of the log")
}

// TestServeDefects: no defect of the handler makes anyone root or tells what
// is in the log.
func TestServeDefects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- wire.Serve(ctx, l, &badHandler{}, slog.New(slog.NewTextHandler(&log, nil))) }()
	for _, op := range []uint16{1, 5} {
		got := string(ask(t, path, wiretest.Message(op, 0, wiretest.Fields("alice@physics"))))
		if len(got) < 16 || got[12] != 7 || strings.Contains(got, "secret") {
			t.Errorf("op %d: %q", op, got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "secret of the log") {
		t.Errorf("the log does not say what failed: %s", &log)
	}
}

// TestServeComplainsLittle: a process that asks nonsense without end fills no log.
func TestServeComplainsLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- wire.Serve(ctx, l, &badHandler{}, slog.New(slog.NewTextHandler(&log, nil))) }()
	for range 50 {
		if b := ask(t, path, bytes.Repeat([]byte("x"), 64)); len(b) != 0 {
			t.Errorf("answered %q", b)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "malformed request"); n != 10 || strings.Count(log.String(), "not told") != 1 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

// TestRootUndelivered: a session whose login is gone before the reply is
// closed again.
func TestRootUndelivered(t *testing.T) {
	need.Root(t)
	path := filepath.Join(t.TempDir(), "s")
	asked, gone := make(chan bool), make(chan bool)
	s := &wiretest.Service{Open: func(wire.Peer, wire.PAMOpenRequest) (wire.PAMOpenReply, error) {
		close(asked)
		<-gone
		return wire.PAMOpenReply{Session: "s1", Message: "hello"}, nil
	}}
	stop := s.Serve(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Write(wiretest.Message(9, 0, wiretest.Fields("alice@physics", "sshd", "", "", "")))
	<-asked
	c.Close()
	close(gone)
	stop()
	if diff := cmp.Diff([]string{"PAMOpen alice@physics", "PAMClose s1"}, s.Calls()); diff != "" {
		t.Error(diff)
	}
}

func TestClient(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	s := &wiretest.Service{Principal: func(_ wire.Peer, r wire.PrincipalsRequest) (string, error) {
		if r.Account.User != "alice" {
			return "", xos.Errorf(xos.Expired, "too late")
		}
		return "alice@physics", nil
	}}
	stop := s.Serve(t, path)
	client := wire.Client{Path: path}
	if got, err := client.Principals(t.Context(), "alice@physics", "t", "k"); got != "alice@physics" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for login, want := range map[string]xos.Kind{"bob@physics": xos.Expired, "root": xos.NotFound, "a\x00b": xos.Invalid} {
		if got, err := client.Principals(t.Context(), login, "t", "k"); got != "" || xos.KindOf(err) != want {
			t.Errorf("%q: got %q, %v; want %v", login, got, err, want)
		}
	}
	stop()
	if _, err := client.Principals(t.Context(), "alice@physics", "t", "k"); xos.KindOf(err) != xos.Unavailable {
		t.Errorf("without a service: %v", err)
	}
	for name, reply := range map[string][]byte{
		"nothing":       nil,
		"half a header": wiretest.Message(6, 0, nil)[:8],
		"another op":    wiretest.Message(1, 0, wiretest.Fields("alice@physics")),
		"half a body":   wiretest.Message(6, 0, wiretest.Fields("alice@physics"))[:20],
		"two principals": wiretest.Message(6, 0, append(wiretest.Fields("alice@physics"),
			wiretest.Fields("root")...)),
		"no message":     wiretest.Message(6, 2, nil),
		"unknown status": wiretest.Message(6, 77, wiretest.Fields("alice@physics")),
	} {
		at := filepath.Join(dir, strings.ReplaceAll(name, " ", ""))
		wiretest.Listen(t, at, func(c *net.UnixConn) {
			wiretest.ReadRequest(c)
			c.Write(reply)
		})
		if got, err := (wire.Client{Path: at}).Principals(t.Context(), "alice@physics", "t", "k"); err == nil || got != "" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
