package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/agent"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

var alice = xos.Account{User: "alice", VO: "physics"}

type host struct {
	path string
	id   agent.Identity
	have bool
}

func newHost(t testing.TB, uid uint32) *host {
	t.Helper()
	h := &host{path: filepath.Join(t.TempDir(), "physics", "1"), have: true}
	if err := os.Chmod(filepath.Dir(filepath.Dir(h.path)), 0o711); err != nil {
		t.Fatal(err)
	}
	h.id.Certificate, h.id.Key = credtest.New(t).SSHSession("alice@physics", "node1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, credtest.Source("7"))
	l, err := agent.Listen(h.path, uid, uid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	a := agent.New(uid, alice, func() (agent.Identity, bool) { return h.id, h.have }, slog.New(slog.DiscardHandler))
	go func() { done <- a.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) client(t testing.TB) sshagent.ExtendedAgent {
	t.Helper()
	c, err := net.Dial("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return sshagent.NewClient(c)
}

// login is what ssh signs.
func login(user, method string, session int, blob []byte, rest ...byte) []byte {
	return append(ssh.Marshal(struct {
		Session               []byte
		Type                  byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Blob                  []byte
	}{make([]byte, session), 50, user, "ssh-connection", method, true, ssh.CertAlgoED25519v01, blob}), rest...)
}

func TestRootSigns(t *testing.T) {
	need.Root(t)
	h := newHost(t, 0)
	c := h.client(t)
	keys, err := c.List()
	if err != nil || len(keys) != 1 || string(keys[0].Blob) != string(h.id.Certificate.Marshal()) {
		t.Fatalf("%v %v", keys, err)
	}
	blob := h.id.Certificate.Marshal()
	hostKey := ssh.Marshal(struct{ Key []byte }{[]byte("a host's key")})
	for name, data := range map[string][]byte{
		"a login":           login("alice@physics", "publickey", 32, blob),
		"a login to a host": login("alice@physics", "publickey-hostbound-v00@openssh.com", 64, blob, hostKey...),
	} {
		sig, err := c.Sign(h.id.Certificate, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if err := h.id.Certificate.Key.Verify(data, sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	id, _ := credential.FromSSH(h.id.Certificate)
	terms, err := consent.Terms(id, "node2", h.id.Key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing":           {},
		"anything":          []byte("anything"),
		"as another":        login("bob@physics", "publickey", 32, blob),
		"as root":           login("root", "publickey", 32, blob),
		"by another method": login("alice@physics", "hostbased", 32, blob),
		"with more":         login("alice@physics", "publickey", 32, blob, 0),
		"no host":           login("alice@physics", "publickey-hostbound-v00@openssh.com", 32, blob),
		"a long host":       login("alice@physics", "publickey-hostbound-v00@openssh.com", 32, blob, append(hostKey, 0)...),
		"another's key":     login("alice@physics", "publickey", 32, blob[:len(blob)-1]),
		"no session":        login("alice@physics", "publickey", 0, blob),
		"a long session":    login("alice@physics", "publickey", 65, blob),
		"a consent":         consent.ToSign(terms),
		"a job's order":     append([]byte("XtreemOS job order 1\x00"), terms...),
		"a TLS handshake":   append([]byte(strings.Repeat(" ", 64)+"TLS 1.3, client CertificateVerify\x00"), make([]byte, 32)...),
	} {
		if _, err := c.Sign(h.id.Certificate, data); err == nil {
			t.Errorf("it signs %s", name)
		}
	}
	plain := h.id.Certificate.Key
	if _, err := c.Sign(plain, login("alice@physics", "publickey", 32, plain.Marshal())); err == nil {
		t.Error("it signs with the bare key")
	}
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	for name, err := range map[string]error{
		"add":        c.Add(sshagent.AddedKey{PrivateKey: other}),
		"remove":     c.Remove(h.id.Certificate),
		"remove all": c.RemoveAll(),
		"lock":       c.Lock([]byte("x")),
	} {
		if err == nil {
			t.Errorf("it lets a client %s", name)
		}
	}
	if keys, err := c.List(); err != nil || len(keys) != 1 {
		t.Errorf("afterwards it has %v %v", keys, err)
	}
	h.have = false
	if keys, err := h.client(t).List(); err != nil || len(keys) != 0 {
		t.Errorf("without an identity it has %v %v", keys, err)
	}
	if _, err := h.client(t).Sign(h.id.Certificate, login("alice@physics", "publickey", 32, blob)); err == nil {
		t.Error("without an identity it signs")
	}
}

// Another user gets no answer, whether the file's mode keeps him out or not.
func TestRootOthers(t *testing.T) {
	need.Root(t)
	h := newHost(t, 4000001)
	as := func(uid, gid uint32) string {
		cmd := exec.Command("ssh-add", "-L")
		cmd.Env = []string{"SSH_AUTH_SOCK=" + h.path, "PATH=/usr/bin:/bin"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for dir := filepath.Dir(filepath.Dir(h.path)); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { // a test's directories let nobody through
			t.Fatal(err)
		}
	}
	if out := as(4000001, 4000001); !strings.Contains(out, "alice@physics") {
		t.Fatalf("her own: %s", out)
	}
	for name, who := range map[string][2]uint32{"another": {4000002, 4000002}, "another of her VO": {4000002, 4000001}, "root": {0, 0}} {
		if out := as(who[0], who[1]); strings.Contains(out, "alice") || strings.Contains(out, "no identities") {
			t.Errorf("%s: %s", name, out)
		}
	}
	for dir, mode := range map[string]os.FileMode{filepath.Dir(h.path): 0o710 | os.ModeDir, h.path: 0o600 | os.ModeSocket} {
		if st, err := os.Stat(dir); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v %v", dir, st.Mode(), err)
		}
	}
	if err := os.Chmod(h.path, 0o666); err != nil {
		t.Fatal(err)
	}
	if out := as(4000002, 4000001); strings.Contains(out, "alice") || strings.Contains(out, "no identities") {
		t.Errorf("through an open socket: %s", out)
	}
}

// What is no message ends the connection, and only that.
func TestRootMalformed(t *testing.T) {
	need.Root(t)
	h := newHost(t, 0)
	for name, raw := range map[string][]byte{
		"empty":    {0, 0, 0, 0},
		"too long": binary.BigEndian.AppendUint32(nil, 1<<20),
		"endless":  {0xff, 0xff, 0xff, 0xff},
	} {
		c, err := net.Dial("unix", h.path)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(raw)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			t.Errorf("%s: %d %v", name, n, err)
		}
		c.Close()
	}
	var held []net.Conn
	for range 100 { // more than it serves at once
		c, err := net.Dial("unix", h.path)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		c.Close()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if keys, err := h.client(t).List(); err == nil && len(keys) == 1 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("after a hundred connections: %v %v", keys, err)
		}
	}
}
