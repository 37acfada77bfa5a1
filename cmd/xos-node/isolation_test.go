package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/vom"
)

// inForce is what was put in force last.
type inForce struct {
	site isolation.Site
	vos  []isolation.VO
	fail error
}

func (f *inForce) Isolate(site isolation.Site, vos []isolation.VO) error {
	if f.fail != nil {
		return f.fail
	}
	f.site, f.vos = site, vos
	return nil
}

func (f *inForce) shares(a, b int, at time.Time) bool {
	return f.site.Decide(f.vos[a], f.vos[b], "network", at).Shared
}

func TestPoliciesInForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "isolation.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	bundle := vom.Bundle{Epoch: 1, Issued: now, Offline: time.Hour, VOs: []vom.VO{
		{Name: "physics", Isolation: "share.network = [\"chemistry\"]"}, {Name: "chemistry"}, {Name: "biology", Isolation: "share.network = [\"*\"]", Offline: 10 * time.Minute}}}
	write("share = [\"network\"]\n[vo.chemistry.share]\nnetwork = [\"*\"]\n[vo.physics]\n")
	var got inForce
	p := newPolicies(config{Isolation: path, VOs: []xos.VOName{"physics", "chemistry"}}, func() vom.Bundle { return bundle }, &got, slog.New(slog.DiscardHandler))
	apply := func() {
		t.Helper()
		if err := p.apply(); err != nil {
			t.Fatal(err)
		}
	}
	const physics, chemistry, biology = 0, 1, 2
	said := func(epoch uint64, unread ...string) {
		t.Helper()
		if now := p.inForce(); now.Epoch != epoch || !slices.Equal(now.Unread, unread) || !slices.Equal(now.Vos, []string{"physics", "chemistry"}) {
			t.Errorf("it says %v; want epoch %d, unread %q", now, epoch, unread)
		}
	}
	said(0)
	apply()
	said(1)
	if !got.shares(physics, chemistry, now) || got.shares(physics, biology, now) || !got.shares(chemistry, biology, now) {
		t.Errorf("in force: %+v", got)
	}
	if got.shares(chemistry, biology, now.Add(10*time.Minute)) || !got.shares(physics, chemistry, now.Add(30*time.Minute)) || got.shares(physics, chemistry, now.Add(time.Hour)) {
		t.Errorf("what is shared does not end with the news: %+v", got.vos)
	}
	// A bad file changes nothing, and the VOs' own words are heard meanwhile.
	write("share = [\"network\", \"files\"]\nshare = []")
	bundle.Epoch, bundle.VOs[physics].Isolation = 2, ""
	err := p.apply()
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad file: %v", err)
	}
	if got.shares(physics, chemistry, now) || !got.shares(chemistry, biology, now) {
		t.Errorf("after a bad file: %+v", got)
	}
	if os.Remove(path) != nil || p.apply() == nil || !got.shares(chemistry, biology, now) {
		t.Errorf("without the file: %+v", got)
	}
	said(2)
	// A good one counts at once, for VOs that set nothing too.
	write("[vo.chemistry.share]\nnetwork = [\"*\"]\n")
	apply()
	if got.shares(chemistry, biology, now) {
		t.Errorf("the site permits no more: %+v", got)
	}
	// What the core sends and this version cannot read shares nothing.
	write("share = [\"*\"]")
	bundle.Epoch, bundle.VOs[physics].Isolation, bundle.VOs[chemistry].Isolation = 3, "share.network = [\"*\"]\nshare.time = [\"*\"]", "share.network = [\"*\"]"
	apply()
	if got.shares(physics, chemistry, now) || got.vos[physics].From != isolation.Unreadable || !got.shares(chemistry, biology, now) {
		t.Errorf("of what cannot be read: %+v", got.vos)
	}
	said(3, "physics")
	// An epoch that is the same brings no other VOs; news prolong.
	bundle.Issued = now.Add(2 * time.Hour)
	apply()
	if !got.shares(chemistry, biology, now.Add(2*time.Hour)) {
		t.Errorf("after news: %+v", got.vos)
	}
	// Nobody vouched for it: that is no bundle without an end.
	issued, offline := bundle.Issued, bundle.Offline
	bundle.Issued, bundle.Offline = time.Time{}, 0
	apply()
	if got.shares(chemistry, biology, now) {
		t.Errorf("by a bundle that nobody vouched for: %+v", got.vos)
	}
	bundle.Issued, bundle.Offline = issued, offline
	bundle.Epoch, got.fail = 4, xos.Errorf(xos.Unavailable, "no")
	if p.apply() == nil {
		t.Error("a failure is not told")
	}
	said(3, "physics")
	got.fail = nil
	apply()
	said(4, "physics")
}
