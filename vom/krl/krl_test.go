package krl_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/krl"
)

func newKey(t testing.TB) ssh.PublicKey {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestSSHKeygen has OpenSSH judge certificates and keys by lists of ours.
func TestSSHKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		need.Missing(t, "ssh-keygen", "apt install openssh-client")
	}
	dir := t.TempDir()
	a, other := credtest.New(t), credtest.New(t)
	mine, _ := a.SSHUser("alice@physics")
	foreign, _ := other.SSHUser("alice@physics")
	bob, _ := a.SSHUser("bob@physics")
	carol, _ := a.SSHUser("carol@physics")
	banned, plain := newKey(t), newKey(t)
	list := &krl.List{Version: 7, Generated: time.Unix(1700000000, 0), Comment: "test",
		CAs:          []krl.CA{{Key: mine.SignatureKey.Marshal(), Serials: []uint64{mine.Serial, 1 << 62, 99}, KeyIDs: []string{"bob@physics"}}},
		Keys:         [][]byte{plain.Marshal()},
		Fingerprints: [][32]byte{sha256.Sum256(banned.Marshal()), sha256.Sum256(carol.Key.Marshal())}}
	data, err := list.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "krl")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		key     ssh.PublicKey
		revoked bool
	}{
		{"serial", mine, true},
		{"the same serial of another authority", foreign, false},
		{"key id", bob, true},
		{"certificate on a key with a revoked fingerprint", carol, true},
		{"fingerprint", banned, true},
		{"key", plain, true},
		{"the key of a revoked certificate", mine.Key, false},
		{"another key", newKey(t), false},
	} {
		file := filepath.Join(dir, "key.pub")
		if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(tt.key), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(keygen, "-Q", "-f", path, file).CombinedOutput()
		if (err != nil) != tt.revoked || strings.Contains(string(out), "REVOKED") != tt.revoked {
			t.Errorf("%s: %v, %s", tt.name, err, out)
		}
	}
	if out, err := exec.Command(keygen, "-Q", "-l", "-f", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "version 7") {
		t.Errorf("ssh-keygen reads %v\n%s", err, out)
	}
}

func TestFromBundle(t *testing.T) {
	a := credtest.New(t)
	now := time.Now()
	key := newKey(t)
	a.Change(func(b *vom.Bundle) {
		b.RevokedSerials = []string{"5", "123456789012345678901234567890", "9"}
		b.Revocations = []vom.Revocation{{Serial: "77", Before: now}, {User: "alice", VO: "physics", Before: now}}
		b.Bans = []vom.Ban{{Kind: vom.BanUser, Subject: "eve"}, {Kind: vom.BanAccount, Subject: "bob@physics"}, {Kind: vom.BanNode, Subject: "node9"},
			{Kind: vom.BanKey, Subject: ssh.FingerprintSHA256(key)}, {Kind: vom.BanUser, Subject: "old", Until: now.Add(-time.Second)}}
	})
	l, err := krl.FromBundle(a.Bundle(), now)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.CAs) != 1 || l.Version != a.Bundle().Epoch || len(l.Fingerprints) != 1 || l.Fingerprints[0] != sha256.Sum256(key.Marshal()) {
		t.Fatalf("list %+v", l)
	}
	if d := cmp.Diff([]uint64{5, 9, 77}, l.CAs[0].Serials); d != "" {
		t.Error(d)
	}
	// A re-admitted member's name is not refused, a banned one's is.
	if d := cmp.Diff([]string{"eve@physics", "eve@chemistry", "bob@physics"}, l.CAs[0].KeyIDs); d != "" {
		t.Error(d)
	}
	for _, bad := range []func(*vom.Bundle){
		func(b *vom.Bundle) { b.RevokedSerials = []string{"5x"} },
		func(b *vom.Bundle) { b.Bans = []vom.Ban{{Kind: vom.BanKey, Subject: "SHA256:short"}} },
		func(b *vom.Bundle) { b.Bans = []vom.Ban{{Kind: "else", Subject: "x"}} },
		func(b *vom.Bundle) { b.SSHUserCAs = []string{"no key"} },
	} {
		b := a.Bundle()
		bad(&b)
		if l, err := krl.FromBundle(b, now); err == nil {
			t.Errorf("a malformed bundle gave %+v", l)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, l := range []*krl.List{{}, {Version: 1, Generated: time.Unix(1700000000, 0), Comment: "c"},
		{CAs: []krl.CA{{Key: []byte("ca"), Serials: []uint64{1, 2, 1 << 63}, KeyIDs: []string{"a@b", "c"}}, {KeyIDs: []string{"x"}}}},
		{Keys: [][]byte{[]byte("k"), []byte("j")}, Fingerprints: [][32]byte{{1}, {2}}}} {
		data, err := l.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := krl.Decode(data)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%v: %x became %x", err, data, again)
		}
	})
}

// FuzzRoundTrip has everything that can be encoded read back.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), int64(1700000000), "XtreemOS", []byte("ca"), uint64(5), uint64(9), "alice@physics", []byte("key"))
	f.Add(uint64(0), int64(0), "", []byte(nil), uint64(1), uint64(1), "x", []byte{0})
	f.Fuzz(func(t *testing.T, version uint64, at int64, comment string, ca []byte, s1, s2 uint64, id string, key []byte) {
		in := &krl.List{Version: version, Generated: time.Unix(at, 0), Comment: comment,
			CAs: []krl.CA{{Key: ca, Serials: []uint64{s1, s2}, KeyIDs: []string{id}}}, Keys: [][]byte{key}, Fingerprints: [][32]byte{sha256.Sum256(key)}}
		data, err := in.Encode()
		if err != nil {
			return
		}
		if at > 1<<40 {
			return // no machine's clock
		}
		out, err := krl.Decode(data)
		if err != nil {
			t.Fatalf("%+v is not read back: %v", in, err)
		}
		if out.CAs[0].KeyIDs[0] != id || out.Fingerprints[0] != in.Fingerprints[0] || out.Version != version {
			t.Fatalf("%+v became %+v", in, out)
		}
	})
}
