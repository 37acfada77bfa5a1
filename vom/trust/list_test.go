package trust_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/krl"
	"github.com/xtreemos/xos/vom/trust"
)

// record is a log that may be read while it is written.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.b.String(), s)
}

// TestRevocationList: the file for sshd follows the bundle, comes back when it
// was taken away, and is there after a restart without the core.
func TestRevocationList(t *testing.T) {
	f := start(t)
	token := f.Member("alice@physics")
	f.join()
	k := f.open()
	stop := f.run(k)
	path := filepath.Join(f.cfg.TrustDir, trust.ListFile)
	list := func() *krl.List {
		data, err := os.ReadFile(path)
		if err != nil {
			return &krl.List{}
		}
		l, err := krl.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	wait(t, "there is a list", func() bool { return list().Version > 0 })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the list's mode: %v %v", info, err)
	}
	_, cert := f.Issue("alice@physics", token)
	if err := f.Records.RemoveMember(t.Context(), xos.Account{User: "alice", VO: "physics"}, "", "by root"); err != nil {
		t.Fatal(err)
	}
	serial := cert.Leaf.SerialNumber.Uint64()
	listed := func() bool {
		l := list()
		return len(l.CAs) == 1 && slices.Contains(l.CAs[0].Serials, serial)
	}
	wait(t, "her serial is listed", listed)
	if _, err := f.Records.AddBan(t.Context(), vom.Ban{Kind: vom.BanUser, Subject: "eve"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	banned := func() bool { l := list(); return len(l.CAs) == 1 && slices.Contains(l.CAs[0].KeyIDs, "eve@physics") }
	wait(t, "who is banned is listed", banned)
	f.Pass(2 * time.Hour)
	wait(t, "the ban's end is heeded without a new bundle", func() bool { return !banned() && listed() })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wait(t, "it comes back", listed)
	stop()

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.open() // and nobody asks the core
	if !listed() {
		t.Error("a restart without the core left sshd without a list")
	}
}

// TestOffline: a machine serves a VO by old news for as long as the core, the
// VO and the machine all allow.
func TestOffline(t *testing.T) {
	f := start(t)
	f.Member("alice@physics")
	f.Member("carol@biology")
	f.join()
	if err := f.Records.SetOffline(t.Context(), "physics", time.Hour); err != nil {
		t.Fatal(err)
	}
	f.cfg.Offline = 2 * time.Hour
	log := &record{}
	f.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	k := f.open()
	stop := f.run(k)
	defer func() { stop() }()
	wait(t, "there are news", func() bool { return len(k.Bundle().VOs) == 2 })
	b := k.Bundle()
	if p, c := b.ServesUntil("physics").Sub(b.Issued), b.ServesUntil("biology").Sub(b.Issued); p != time.Hour || c != 2*time.Hour {
		t.Errorf("physics is served for %v, biology for %v", p, c)
	}
	f.core.lie.Store(&xosv1.BundleResponse{}) // no word that can be believed
	f.Pass(90 * time.Minute)
	wait(t, "the log says that physics is not served", func() bool { return log.has("vo=physics") })
	if log.has("vo=biology") {
		t.Error("biology was hit too")
	}
	f.Pass(time.Hour)
	wait(t, "nor biology", func() bool { return log.has("vo=biology") })
	f.core.lie.Store(nil)
	wait(t, "the log says that it is again", func() bool { return log.has("news from the core again") })
	stop()
	// What the machine allows is its own affair: the core's word is on disk.
	f.cfg.Offline = 0
	k = f.open()
	stop = func() {}
	if got := k.Bundle().Offline; got != 24*time.Hour {
		t.Errorf("the bundle on disk serves for %v", got)
	}
}
