package mrc_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/mrc"
	"github.com/xtreemos/xos/xfs/xfstest"
)

// oneOSD is storage of which one OSD is always there.
type oneOSD struct{}

func (oneOSD) Pick(context.Context) (xfs.Target, error) {
	return xfs.Target{OSD: "osd-1", Address: "127.0.0.1:1"}, nil
}
func (oneOSD) Target(_ context.Context, osd string) (xfs.Target, error) {
	return xfs.Target{OSD: osd, Address: "127.0.0.1:1"}, nil
}
func (oneOSD) Space(context.Context) (int64, int64, error) { return 1000, 500, nil }

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

var home = mrc.Volume{Name: "home", Owner: xos.Account{User: "alice", VO: "physics"}, ObjectSize: xfs.DefaultObjectSize}

func store(t testing.TB) kv.Store {
	t.Helper()
	db, err := pebble.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func service(t testing.TB, db kv.Store, c *clock) *mrc.Service {
	t.Helper()
	s, err := mrc.New(t.Context(), mrc.Config{Now: c.now}, db, oneOSD{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateVolume(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	return s
}

func identity(t testing.TB, account string, groups ...xos.GroupName) vom.Identity {
	t.Helper()
	a, err := xos.ParseAccount(account)
	if err != nil {
		t.Fatal(err)
	}
	return vom.Identity{
		Attributes: credential.Clean(xos.Attributes{Account: a, Groups: groups}),
		Node:       "node1", NotAfter: time.Now().Add(1000 * time.Hour),
	}
}

func TestContract(t *testing.T) {
	xfstest.RunMRC(t, func(t *testing.T) xfs.MRC {
		return service(t, store(t), &clock{}).View(home, identity(t, "alice@physics"))
	})
}

func TestPermissions(t *testing.T) {
	xfstest.RunPermissions(t, func(t *testing.T) xfstest.As {
		s := service(t, store(t), &clock{})
		return func(account string, groups ...xos.GroupName) xfs.MRC {
			return s.View(home, identity(t, account, groups...))
		}
	})
}
