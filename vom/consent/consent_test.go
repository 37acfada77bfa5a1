package consent_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

type scene struct {
	cert *ssh.Certificate
	key  ed25519.PrivateKey
	who  vom.Identity
	node ed25519.PublicKey
}

func newScene(t testing.TB) *scene {
	s := &scene{}
	s.cert, s.key = credtest.New(t).SSHUser("alice@physics")
	var err error
	if s.who, err = credential.FromSSH(s.cert); err != nil {
		t.Fatal(err)
	}
	s.node, _, _ = ed25519.GenerateKey(rand.Reader)
	return s
}

// sign has a real agent sign, by the certificate as ssh would.
func (s *scene) sign(t testing.TB, data []byte) []byte {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: s.key, Certificate: s.cert}); err != nil {
		t.Fatal(err)
	}
	sig, err := ring.Sign(s.cert, data)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Marshal(sig)
}

func (s *scene) terms(t testing.TB, edit func(*xosv1.ConsentContent)) []byte {
	t.Helper()
	content, err := consent.Terms(s.who, "node1", s.node)
	if err != nil {
		t.Fatal(err)
	}
	if edit == nil {
		return content
	}
	var c xosv1.ConsentContent
	if err := proto.Unmarshal(content, &c); err != nil {
		t.Fatal(err)
	}
	edit(&c)
	if content, err = proto.Marshal(&c); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestVerify(t *testing.T) {
	s, other := newScene(t), newScene(t)
	now := time.Now()
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	good := s.terms(t, nil)
	session := s.who
	session.Node = "node1"
	for _, tt := range []struct {
		name    string
		content []byte
		sig     []byte
		who     vom.Identity
		node    xos.NodeID
		key     ed25519.PublicKey
		want    xos.Kind
	}{
		{"good", good, s.sign(t, consent.ToSign(good)), s.who, "node1", s.node, 0},
		{"shown by another node", good, s.sign(t, consent.ToSign(good)), s.who, "node2", s.node, xos.Permission},
		{"for another key of the node", good, s.sign(t, consent.ToSign(good)), s.who, "node1", other.node, xos.Permission},
		{"signed by another user", good, other.sign(t, consent.ToSign(good)), s.who, "node1", s.node, xos.Permission},
		{"signed by a key that nobody certified", good, ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(stranger, consent.ToSign(good))}), s.who, "node1", s.node, xos.Permission},
		{"signed without the frame", good, s.sign(t, good), s.who, "node1", s.node, xos.Permission},
		{"another algorithm claimed", good, ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoRSASHA256, Blob: ed25519.Sign(s.key, consent.ToSign(good))}), s.who, "node1", s.node, xos.Permission},
		{"something behind the signature", good, append(s.sign(t, consent.ToSign(good)), 1), s.who, "node1", s.node, xos.Permission},
		{"no signature", good, nil, s.who, "node1", s.node, xos.Invalid},
		{"a broken signature", good, []byte{0, 0, 0, 9}, s.who, "node1", s.node, xos.Invalid},
		{"no content", nil, s.sign(t, consent.ToSign(good)), s.who, "node1", s.node, xos.Invalid},
		{"a long content", make([]byte, 4096), s.sign(t, consent.ToSign(good)), s.who, "node1", s.node, xos.Invalid},
		{"by a session's certificate", good, s.sign(t, consent.ToSign(good)), session, "node1", s.node, xos.Permission},
	} {
		end, err := consent.Verify(tt.content, tt.sig, s.cert, tt.who, tt.node, tt.key, now)
		if tt.want == 0 && (err != nil || !end.Equal(s.who.NotAfter)) || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v %v, want %v", tt.name, end, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name string
		edit func(*xosv1.ConsentContent)
		want xos.Kind
		end  time.Time
	}{
		{"of another account", func(c *xosv1.ConsentContent) { c.Account = "bob@physics" }, xos.Permission, time.Time{}},
		{"of another certificate", func(c *xosv1.ConsentContent) { c.Serial = "1" + c.Serial }, xos.Permission, time.Time{}},
		{"without a node", func(c *xosv1.ConsentContent) { c.Node = "" }, xos.Permission, time.Time{}},
		{"without an end", func(c *xosv1.ConsentContent) { c.NotAfter = nil }, xos.Invalid, time.Time{}},
		{"without a proper end", func(c *xosv1.ConsentContent) { c.NotAfter = &timestamppb.Timestamp{Nanos: -5} }, xos.Invalid, time.Time{}},
		{"past", func(c *xosv1.ConsentContent) { c.NotAfter = timestamppb.New(now) }, xos.Expired, time.Time{}},
		{"shorter", func(c *xosv1.ConsentContent) { c.NotAfter = timestamppb.New(now.Add(time.Minute)) }, 0, now.Add(time.Minute)},
		{"longer than the certificate", func(c *xosv1.ConsentContent) { c.NotAfter = timestamppb.New(now.Add(99 * time.Hour)) }, 0, s.who.NotAfter},
	} {
		content := s.terms(t, tt.edit)
		end, err := consent.Verify(content, s.sign(t, consent.ToSign(content)), s.cert, s.who, "node1", s.node, now)
		if tt.want == 0 && (err != nil || !end.Equal(tt.end)) || tt.want != 0 && !xos.Is(err, tt.want) {
			t.Errorf("%s: %v %v, want %v", tt.name, end, err, tt.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	s := newScene(f)
	good := s.terms(f, nil)
	sig := s.sign(f, consent.ToSign(good))
	f.Add(good, sig)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, content, signature []byte) {
		if _, err := consent.Verify(content, signature, s.cert, s.who, "node1", s.node, time.Now()); err == nil && string(content) != string(good) {
			t.Errorf("%x with %x passes", content, signature)
		}
	})
}
