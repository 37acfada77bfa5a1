package order_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/vom/order"
)

func content(edit func(*xosv1.OrderContent)) *xosv1.OrderContent {
	o := &xosv1.OrderContent{Job: "core-1", Account: &xosv1.Attributes{User: "alice", Vo: "physics"}, SubmitNode: "node1",
		ExecutionNode: "node2", NotAfter: timestamppb.New(time.Now().Add(time.Minute)), SpecSha256: order.SpecHash([]byte("spec"))}
	if edit != nil {
		edit(o)
	}
	return o
}

func sign(t testing.TB, o *xosv1.OrderContent, c tls.Certificate) order.Signed {
	t.Helper()
	s, err := order.Sign(o, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOrders(t *testing.T) {
	a := credtest.New(t)
	held := a.Delegated("alice@physics", "node1")
	good := sign(t, content(nil), held)
	now := time.Now()
	bare := good
	bare.Signature = ed25519.Sign(held.PrivateKey.(ed25519.PrivateKey), good.Content)
	old := a.Delegated("alice@physics", "node1", credtest.Issued(now.Add(-time.Hour), 30*time.Minute))
	lost := a.Delegated("alice@physics", "node1", credtest.Source("77"))
	a.Revoke(vom.Revocation{Serial: "77", Before: now.Add(time.Hour)})
	change := func(f func(*order.Signed)) order.Signed {
		s := good
		f(&s)
		return s
	}
	for _, tt := range []struct {
		name string
		s    order.Signed
		want xos.Kind
	}{
		{"a good one", good, 0},
		{"signed without saying as what", bare, xos.Permission},
		{"no content", change(func(s *order.Signed) { s.Content = nil }), xos.Invalid},
		{"content of 17 KiB", change(func(s *order.Signed) { s.Content = make([]byte, 17<<10) }), xos.Invalid},
		{"no signature", change(func(s *order.Signed) { s.Signature = nil }), xos.Permission},
		{"no chain", change(func(s *order.Signed) { s.Chain = nil }), xos.Permission},
		{"five certificates", change(func(s *order.Signed) { s.Chain = append(s.Chain, s.Chain[1], s.Chain[1], s.Chain[1]) }), xos.Invalid},
		{"no certificate", change(func(s *order.Signed) { s.Chain = [][]byte{[]byte("x")} }), xos.Invalid},
		{"another's chain", change(func(s *order.Signed) { s.Chain = a.Delegated("bob@physics", "node1").Certificate }), xos.Permission},
		{"not delegated", sign(t, content(nil), a.X509User("alice@physics")), xos.Permission},
		{"no submitter", sign(t, content(func(o *xosv1.OrderContent) { o.SubmitNode = "" }), a.X509User("alice@physics")), xos.Permission},
		{"another submitter", sign(t, content(func(o *xosv1.OrderContent) { o.SubmitNode = "node3" }), held), xos.Permission},
		{"another VO", sign(t, content(func(o *xosv1.OrderContent) { o.Account.Vo = "chemistry" }), held), xos.Permission},
		{"no account", sign(t, content(func(o *xosv1.OrderContent) { o.Account = nil }), held), xos.Permission},
		{"over", sign(t, content(func(o *xosv1.OrderContent) { o.NotAfter = timestamppb.New(now.Add(-time.Second)) }), held), xos.Expired},
		{"without end", sign(t, content(func(o *xosv1.OrderContent) { o.NotAfter = nil }), held), xos.Expired},
		{"a credential that expired", sign(t, content(nil), old), xos.Expired},
		{"a credential whose source was revoked", sign(t, content(nil), lost), xos.Permission},
		{"a foreign credential", sign(t, content(nil), credtest.New(t).Delegated("alice@physics", "node1")), xos.Permission},
		{"a machine's", sign(t, content(nil), a.Machine("node1", vom.ServiceNode)), xos.Invalid},
	} {
		o, id, err := order.Verify(a.Verifier(), tt.s.Content, tt.s.Signature, tt.s.Chain, now)
		switch {
		case tt.want == 0 && (err != nil || id.Account.String() != "alice@physics" || o.Job != "core-1"):
			t.Errorf("%s: %v, %v, %v", tt.name, o, id, err)
		case tt.want != 0 && (!xos.Is(err, tt.want) || o != nil || id.User != ""):
			t.Errorf("%s: %v, %v, want %v", tt.name, o, err, tt.want)
		}
	}
	for i := range good.Content {
		bad := bytes.Clone(good.Content)
		bad[i] ^= 1 << (i % 8)
		if _, _, err := order.Verify(a.Verifier(), bad, good.Signature, good.Chain, now); !xos.Is(err, xos.Permission) {
			t.Fatalf("byte %d of the content changed: %v", i, err)
		}
	}
	for i := range good.Signature {
		bad := bytes.Clone(good.Signature)
		bad[i] ^= 1 << (i % 8)
		if _, _, err := order.Verify(a.Verifier(), good.Content, bad, good.Chain, now); !xos.Is(err, xos.Permission) {
			t.Fatalf("byte %d of the signature changed: %v", i, err)
		}
	}
	if _, err := order.Sign(content(nil), tls.Certificate{Certificate: held.Certificate}); !xos.Is(err, xos.Internal) {
		t.Errorf("without a key: %v", err)
	}
}

func TestMatches(t *testing.T) {
	o := content(nil)
	for spec, want := range map[string]bool{"spec": true, "": false, "spec ": false} {
		if got := order.Matches(o, []byte(spec)); got != want {
			t.Errorf("%q: %v", spec, got)
		}
	}
	if order.Matches(&xosv1.OrderContent{}, nil) {
		t.Error("an order for no specification matches one")
	}
}

func FuzzVerify(f *testing.F) {
	a := credtest.New(f)
	held := a.Delegated("alice@physics", "node1")
	s := sign(f, content(nil), held)
	f.Add(s.Content, s.Signature, s.Chain[0])
	f.Add([]byte{0x0a}, []byte{}, []byte{0x30})
	f.Fuzz(func(t *testing.T, text, signature, leaf []byte) {
		o, _, err := order.Verify(a.Verifier(), text, signature, [][]byte{leaf, held.Certificate[1]}, time.Now())
		if err != nil {
			return
		}
		var want xosv1.OrderContent
		if err := proto.Unmarshal(s.Content, &want); err != nil || !proto.Equal(o, &want) {
			t.Fatalf("%v was never signed", o)
		}
	})
}
