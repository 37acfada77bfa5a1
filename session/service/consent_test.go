package service_test

import (
	"crypto/ed25519"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// Where the VO wants her signature: the login lacks its home and says so, and
// has it once she has signed, by her own agent's key and nobody else's.
func TestRootConsent(t *testing.T) {
	s := newStage(t)
	s.core.set(func() {
		s.core.refuse = func(m *xosv1.DelegateRequest) error {
			if len(m.SshCertificate) > 0 && len(m.Consent) == 0 {
				return xos.Errorf(xos.Permission, "VO physics forbids delegate").WithHint("log in with ssh -A, then xos delegate")
			}
			return nil
		}
	})
	cert, key := s.ca.SSHUser("alice@physics")
	_, reply, err := s.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	uid := s.uid(alice)
	if !strings.Contains(reply.Message, "xos delegate") || !slices.Contains(reply.Env, "XOS_CONSENT=wanted") || s.mounts.has("home-physics-alice") {
		t.Errorf("told %q, environment %q", reply.Message, reply.Env)
	}
	terms := func(uid uint32, c *ssh.Certificate) ([]byte, error) {
		resp, err := s.Terms(as(uid), connect.NewRequest(&xosv1.TermsRequest{SshCertificate: c.Marshal()}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.Content, nil
	}
	consenting := func(uid uint32, c *ssh.Certificate, content []byte, key ed25519.PrivateKey) error {
		sig := ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(key, consent.ToSign(content))})
		_, err := s.Consent(as(uid), connect.NewRequest(&xosv1.ConsentRequest{SshCertificate: c.Marshal(), Content: content, Signature: sig}))
		return err
	}
	content, err := terms(uid, cert)
	if err != nil {
		t.Fatal(err)
	}
	bob, bobs := s.ca.SSHUser("bob@physics")
	other, others := s.ca.SSHUser("alice@physics")
	elsewhere, _ := s.ca.SSHSession("alice@physics", "node2", []netip.Addr{netip.MustParseAddr("192.0.2.7")}, credtest.Source("77"))
	for name, err := range map[string]error{
		"another user's certificate":  second(terms(uid, bob)),
		"a session's certificate":     second(terms(uid, elsewhere)),
		"another uid":                 second(terms(uid+1, cert)),
		"root":                        second(terms(0, cert)),
		"another user's signature":    consenting(uid, cert, content, bobs),
		"another of her keys":         consenting(uid, cert, content, others),
		"another of her certificates": consenting(uid, other, content, others),
		"another uid's consent":       consenting(uid+1, cert, content, key),
	} {
		if !xos.Is(err, xos.Permission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.status(uid).Held {
		t.Fatal("one of these got it")
	}
	if err := consenting(uid, cert, content, key); err != nil {
		t.Fatal(err)
	}
	if st := s.status(uid); !st.Held || st.Mode != "signed" || !s.mounts.has("home-physics-alice") {
		t.Errorf("status %v", st)
	}
	// It is her certificate's, too, where that is newer than the login's.
	newer, newKey := s.ca.SSHUser("alice@physics", credtest.Issued(time.Now(), 3*time.Hour), credtest.Groups("higgs"))
	if content, err = terms(uid, newer); err != nil {
		t.Fatal(err)
	}
	if err := consenting(uid, newer, content, newKey); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(s.status(uid).Until.AsTime()); left < 2*time.Hour {
		t.Errorf("with a newer one it lasts %v", left)
	}
	// Said again it gives nothing, and does not trouble the core.
	n := len(s.core.delegated())
	for range 3 {
		if err := consenting(uid, newer, content, newKey); err != nil {
			t.Error(err)
		}
	}
	if again := len(s.core.delegated()); again != n {
		t.Errorf("the core was asked %d times more", again-n)
	}
	// What the newer one says of her groups is so here.
	if groups, err := s.InitGroups(t.Context(), root, alice); err != nil || len(groups) != 2 {
		t.Errorf("groups %v %v", groups, err)
	}
}

func second[A any](_ A, err error) error { return err }
