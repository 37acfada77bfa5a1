package agent

import (
	"crypto/ed25519"
	"net/netip"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// FuzzAnswer: whatever is asked, what it signs is a login of the account.
func FuzzAnswer(f *testing.F) {
	cert, key := credtest.New(f).SSHSession("alice@physics", "node1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, credtest.Source("7"))
	a := New(1, xos.Account{User: "alice", VO: "physics"}, func() (Identity, bool) { return Identity{cert, key}, true }, nil)
	good := ssh.Marshal(struct {
		Session               []byte
		Type                  byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Blob                  []byte
	}{make([]byte, 32), 50, "alice@physics", "ssh-connection", "publickey", true, ssh.CertAlgoED25519v01, cert.Marshal()})
	request := func(data []byte) []byte {
		return append([]byte{msgSignRequest}, ssh.Marshal(struct {
			Blob, Data []byte
			Flags      uint32
		}{cert.Marshal(), data, 0})...)
	}
	f.Add(request(good))
	f.Add(request([]byte("anything")))
	f.Add([]byte{msgRequestIdentities})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, q []byte) {
		answer := a.answer(q)
		if len(answer) == 0 {
			t.Fatal("no answer")
		}
		if answer[0] != msgSignResponse {
			return
		}
		var r struct{ Signature []byte }
		var sig ssh.Signature
		if ssh.Unmarshal(answer[1:], &r) != nil || ssh.Unmarshal(r.Signature, &sig) != nil {
			t.Fatalf("a malformed answer %x", answer)
		}
		var asked struct {
			Blob, Data []byte
			Flags      uint32
		}
		if ssh.Unmarshal(q[1:], &asked) != nil || !isLogin(asked.Data, a.account, cert.Marshal()) || !ed25519.Verify(key.Public().(ed25519.PublicKey), asked.Data, sig.Blob) {
			t.Fatalf("signed %x", asked.Data)
		}
	})
}
