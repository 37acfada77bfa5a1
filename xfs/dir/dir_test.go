package dir_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs/dir"
	"github.com/xtreemos/xos/xfs/mrc"
)

type fixture struct {
	*dir.Service
	xosv1connect.DirectoryHandler
	authority *credtest.Authority
	now       time.Time
}

func start(t *testing.T) *fixture {
	t.Helper()
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fixture{authority: credtest.New(t), now: time.Now()}
	f.Service = dir.New(dir.Config{MRC: ":7446", Now: func() time.Time { return f.now }}, db)
	m, err := mrc.New(t.Context(), mrc.Config{}, db, f.Service)
	if err != nil {
		t.Fatal(err)
	}
	f.Use(m, m.Key())
	f.DirectoryHandler = f.Handler(f.authority.Verifier())
	return f
}

// Contexts of callers.
func root(t *testing.T) context.Context {
	return rpc.WithPeer(t.Context(), rpc.Peer{Unix: true})
}

func local(t *testing.T) context.Context {
	return rpc.WithPeer(t.Context(), rpc.Peer{Unix: true, UID: 1000})
}

func bearer(t *testing.T, cert tls.Certificate) context.Context {
	return rpc.WithPeer(t.Context(), rpc.Peer{UID: ^uint32(0), GID: ^uint32(0), Chain: credtest.Chain(t, cert)})
}

func (f *fixture) create(ctx context.Context, name, owner string, object int64) error {
	_, err := f.DirectoryHandler.CreateVolume(ctx, connect.NewRequest(&xosv1.CreateVolumeRequest{Name: name, Owner: owner, ObjectSize: object}))
	return err
}

func TestCreateVolume(t *testing.T) {
	f := start(t)
	alice := f.authority.Delegated("alice@physics", "node1")
	for _, c := range []struct {
		name   string
		ctx    context.Context
		volume string
		owner  string
		object int64
		want   xos.Kind
		ok     bool
	}{
		{"a user", bearer(t, alice), "v", "alice@physics", 0, xos.Permission, false},
		{"a machine", bearer(t, f.authority.Machine("node1", vom.ServiceNode)), "v", "alice@physics", 0, xos.Permission, false},
		{"a local user", local(t), "v", "alice@physics", 0, xos.Permission, false},
		{"nobody", t.Context(), "v", "alice@physics", 0, xos.Permission, false},
		{"a bad name", root(t), "../v", "alice@physics", 0, xos.Invalid, false},
		{"an empty name", root(t), "", "alice@physics", 0, xos.Invalid, false},
		{"no owner", root(t), "v", "", 0, xos.Invalid, false},
		{"odd objects", root(t), "v", "alice@physics", 1000, xos.Invalid, false},
		{"root", root(t), "v", "alice@physics", 0, 0, true},
		{"root again", root(t), "v", "alice@physics", 0, xos.Exists, false},
		{"another's", root(t), "v", "bob@physics", 0, xos.Exists, false},
		{"with objects", root(t), "w", "bob@physics", 1 << 20, 0, true},
	} {
		err := f.create(c.ctx, c.volume, c.owner, c.object)
		if c.ok && err != nil || !c.ok && !xos.Is(err, c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// As XVOMS makes homes: it may ask twice.
	for range 2 {
		if err := f.Service.CreateVolume(t.Context(), "home", xos.Account{User: "alice", VO: "physics"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Service.CreateVolume(t.Context(), "home", xos.Account{User: "bob", VO: "physics"}); !xos.Is(err, xos.Exists) {
		t.Errorf("another's home: %v", err)
	}

	list := func(ctx context.Context, name string) (names []string, err error) {
		resp, err := f.ListVolumes(ctx, connect.NewRequest(&xosv1.ListVolumesRequest{Name: name}))
		if err != nil {
			return nil, err
		}
		for _, v := range resp.Msg.Volumes {
			if v.Mrc != ":7446" || v.Vo != "physics" {
				t.Errorf("volume %v", v)
			}
			names = append(names, v.Name)
		}
		return names, nil
	}
	for _, c := range []struct {
		who  string
		ctx  context.Context
		name string
		want []string
	}{
		{"root", root(t), "", []string{"home", "v", "w"}},
		{"root, one", root(t), "w", []string{"w"}},
		{"a node", bearer(t, f.authority.Machine("node1", vom.ServiceNode)), "", []string{"home", "v", "w"}},
		{"alice", bearer(t, alice), "", []string{"home", "v"}},
		{"alice, another's", bearer(t, alice), "w", nil},
		{"carol", bearer(t, f.authority.X509User("carol@physics")), "", nil},
	} {
		got, err := list(c.ctx, c.name)
		if err != nil {
			t.Errorf("%s: %v", c.who, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.who, diff)
		}
	}
	for who, ctx := range map[string]context.Context{"nobody": t.Context(), "a local user": local(t)} {
		if got, err := list(ctx, ""); err == nil {
			t.Errorf("%s sees %v", who, got)
		}
	}
}

func TestStorage(t *testing.T) {
	f := start(t)
	one := bearer(t, f.authority.Machine("s1", vom.ServiceStorage))
	two := bearer(t, f.authority.Machine("s2", vom.ServiceStorage))
	announce := func(ctx context.Context, id, address string, free int64) error {
		resp, err := f.AnnounceStorage(ctx, connect.NewRequest(&xosv1.AnnounceStorageRequest{Id: id, Address: address, Total: 1000, Free: free}))
		if err == nil && len(resp.Msg.CapabilityKey) != 32 {
			t.Errorf("the key has %d bytes", len(resp.Msg.CapabilityKey))
		}
		return err
	}
	if _, err := f.Pick(t.Context()); !xos.Is(err, xos.Unavailable) {
		t.Errorf("no storage: %v", err)
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		addr string
	}{
		"root":          {root(t), "s1:7445"},
		"a node":        {bearer(t, f.authority.Machine("s1", vom.ServiceNode)), "s1:7445"},
		"a user":        {bearer(t, f.authority.Delegated("alice@physics", "s1")), "s1:7445"},
		"a bad address": {one, "s1"},
	} {
		if err := announce(c.ctx, "osd-1", c.addr, 5); err == nil {
			t.Errorf("%s announced storage", name)
		}
	}
	for _, err := range []error{announce(one, "osd-1", "s1:7445", 100), announce(two, "osd-2", "s2:7445", 200)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := announce(two, "osd-1", "s2:7445", 900); !xos.Is(err, xos.Permission) {
		t.Errorf("another's storage taken over: %v", err)
	}
	pick := func(want string) {
		t.Helper()
		if at, err := f.Pick(t.Context()); err != nil || at.OSD != want {
			t.Errorf("picked %v, %v, want %s", at, err, want)
		}
	}
	pick("osd-2")
	if total, free, err := f.Space(t.Context()); total != 2000 || free != 300 || err != nil {
		t.Errorf("space: %d of %d, %v", free, total, err)
	}
	f.now = f.now.Add(20 * time.Second)
	if err := announce(one, "osd-1", "s1:9", 50); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(20 * time.Second) // osd-2 is silent for 40 s
	pick("osd-1")
	if at, err := f.Target(t.Context(), "osd-1"); err != nil || at.Address != "s1:9" {
		t.Errorf("target %v, %v", at, err)
	}
	if at, err := f.Target(t.Context(), "osd-2"); err != nil || at.Address != "s2:7445" {
		t.Errorf("a silent one keeps its address: %v, %v", at, err)
	}
	if err := announce(one, "osd-1", "s1:9", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Pick(t.Context()); !xos.Is(err, xos.TooLarge) {
		t.Errorf("full storage: %v", err)
	}
	if resp, err := f.ListStorage(root(t), connect.NewRequest(&xosv1.ListStorageRequest{})); err != nil || len(resp.Msg.Storage) != 2 {
		t.Errorf("list: %v, %v", resp, err)
	}
	if _, err := f.ListStorage(one, connect.NewRequest(&xosv1.ListStorageRequest{})); !xos.Is(err, xos.Permission) {
		t.Errorf("list by a machine: %v", err)
	}
}
