package order_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/order"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

func sign(t *testing.T, ca *credtest.Authority, account string, node xos.NodeID, terms order.Terms, now time.Time, opts ...credtest.Option) order.Signed {
	t.Helper()
	c := ca.Delegated(account, node, opts...)
	id, err := credential.FromX509(c.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := order.Sign(c, id, terms, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOrders(t *testing.T) {
	ca := credtest.New(t)
	now := time.Now()
	spec, _ := proto.Marshal(&xosv1.JobSpec{Argv: []string{"true"}})
	other, _ := proto.Marshal(&xosv1.JobSpec{Argv: []string{"rm", "-rf", "/"}})
	terms := order.Terms{Job: "core-1", Execution: "node2", Spec: spec}
	good := sign(t, ca, "alice@physics", "node1", terms, now, credtest.Groups("higgs"))
	change := func(f func(*xosv1.OrderContent)) order.Signed {
		var c xosv1.OrderContent
		if err := proto.Unmarshal(good.Content, &c); err != nil {
			t.Fatal(err)
		}
		f(&c)
		s := good
		s.Content, _ = proto.Marshal(&c)
		return s
	}
	bobs := sign(t, ca, "bob@physics", "node1", terms, now)
	stolen := good
	stolen.Chain = bobs.Chain
	undelegated := ca.X509User("alice@physics")
	id, _ := credential.FromX509(undelegated.Leaf)
	bare, err := order.Sign(undelegated, id, terms, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		s          order.Signed
		spec       []byte
		here, peer xos.NodeID
		at         time.Time
		want       xos.Kind
		ok         bool
	}{
		{name: "good", s: good, ok: true},
		{name: "another job", s: good, spec: other, want: xos.Permission},
		{name: "another machine", s: good, here: "node3", want: xos.Permission},
		{name: "shown by another", s: good, peer: "node3", want: xos.Permission},
		{name: "late", s: good, at: now.Add(order.Validity + time.Second), want: xos.Expired},
		{name: "changed", s: change(func(c *xosv1.OrderContent) { c.ExecutionNode = "node3" }), here: "node3", want: xos.Permission},
		{name: "prolonged", s: change(func(c *xosv1.OrderContent) { c.NotAfter.Seconds += 3600 }), want: xos.Permission},
		{name: "another's signature", s: stolen, want: xos.Permission},
		{name: "no signature", s: order.Signed{Content: good.Content, Chain: good.Chain}, want: xos.Permission},
		{name: "no signer", s: order.Signed{Content: good.Content, Signature: good.Signature}, want: xos.Permission},
		{name: "garbage for a certificate", s: order.Signed{Content: good.Content, Signature: good.Signature, Chain: [][]byte{{1, 2}}}, want: xos.Invalid},
		{name: "not delegated", s: bare, want: xos.Permission},
		{name: "foreign authority", s: sign(t, credtest.New(t), "alice@physics", "node1", terms, now), want: xos.Permission},
		{name: "expired credential", s: sign(t, ca, "alice@physics", "node1", terms, now, credtest.Issued(now.Add(-time.Hour), time.Minute)), want: xos.Expired},
		{name: "bad id", s: sign(t, ca, "alice@physics", "node1", order.Terms{Job: "../x", Execution: "node2", Spec: spec}, now), want: xos.Invalid},
		{name: "for long", s: sign(t, ca, "alice@physics", "node1", terms, now.Add(30*time.Minute)), want: xos.Permission},
		{name: "huge", s: good, spec: make([]byte, 1<<20), want: xos.TooLarge},
	} {
		if tt.spec == nil {
			tt.spec = spec
		}
		if tt.here == "" {
			tt.here = "node2"
		}
		if tt.peer == "" {
			tt.peer = "node1"
		}
		if tt.at.IsZero() {
			tt.at = now
		}
		v, err := order.Verify(ca.Verifier(), tt.s, tt.spec, tt.here, tt.peer, tt.at)
		if tt.ok {
			if err != nil || v.Job != "core-1" || v.Who.Account.String() != "alice@physics" || v.Spec.Argv[0] != "true" {
				t.Errorf("%s: %+v, %v", tt.name, v, err)
			}
		} else if !xos.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: now})
	if _, err := order.Verify(ca.Verifier(), good, spec, "node2", "node1", now); !xos.Is(err, xos.Permission) {
		t.Errorf("revoked: %v", err)
	}
}

func TestSpecs(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    *xosv1.JobSpec
		want xos.Kind
	}{
		{"no command", &xosv1.JobSpec{}, xos.Invalid},
		{"empty command", &xosv1.JobSpec{Argv: []string{""}}, xos.Invalid},
		{"newline in name", &xosv1.JobSpec{Argv: []string{"a"}, Name: "a\nb"}, xos.Invalid},
		{"long name", &xosv1.JobSpec{Argv: []string{"a"}, Name: strings.Repeat("n", 65)}, xos.Invalid},
		{"zero byte", &xosv1.JobSpec{Argv: []string{"a\x00b"}}, xos.Invalid},
		{"no variable", &xosv1.JobSpec{Argv: []string{"a"}, Env: []string{"A"}}, xos.Invalid},
		{"relative directory", &xosv1.JobSpec{Argv: []string{"a"}, Directory: "x"}, xos.Invalid},
		{"bad node", &xosv1.JobSpec{Argv: []string{"a"}, Node: "../x"}, xos.Invalid},
		{"unknown limit", &xosv1.JobSpec{Argv: []string{"a"}, Limits: map[string]int64{"luck": 1}}, xos.NotSupported},
		{"negative limit", &xosv1.JobSpec{Argv: []string{"a"}, Limits: map[string]int64{"memory": -1}}, xos.Invalid},
		{"too much", &xosv1.JobSpec{Argv: []string{"a", strings.Repeat("x", 129<<10)}}, xos.TooLarge},
	} {
		if err := order.CheckSpec(tt.s); !xos.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := order.CheckSpec(&xosv1.JobSpec{Argv: []string{"sh", "-c", "echo 'ä\n'"}, Name: "päper 1", Env: []string{"A=b=c"}, Limits: map[string]int64{"cpus": 500}}); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	ca := credtest.New(f)
	c := ca.Delegated("alice@physics", "node1")
	id, _ := credential.FromX509(c.Leaf)
	spec, _ := proto.Marshal(&xosv1.JobSpec{Argv: []string{"true"}})
	s, err := order.Sign(c, id, order.Terms{Job: "core-1", Execution: "node2", Spec: spec}, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Content, s.Signature, s.Chain[0], spec)
	f.Add([]byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, content, sig, leaf, spec []byte) {
		o := order.Signed{Content: content, Signature: sig, Chain: [][]byte{leaf, c.Certificate[1]}}
		if v, err := order.Verify(ca.Verifier(), o, spec, "node2", "node1", time.Now()); err == nil && v.Job != "core-1" {
			t.Errorf("accepted %+v", v)
		}
	})
}
