package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard/isolation"
	"github.com/xtreemos/xos/vom"
)

// siteIsolation reads what this machine's owner lets VOs share.
func (c config) siteIsolation() (isolation.Site, error) {
	if c.Isolation == "" {
		return isolation.Site{}, nil
	}
	text, err := readPolicy(c.Isolation)
	if err != nil {
		return isolation.Site{}, err
	}
	site, err := isolation.ParseSite(text)
	if err != nil {
		return site, xos.Errorf(xos.Invalid, "isolation = %q: %w", c.Isolation, err)
	}
	return site, nil
}

func readPolicy(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the site's policy of isolation: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, isolation.MaxText+1)) // one more is too much
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the site's policy of isolation: %w", err)
	}
	return text, nil
}

// isolator puts policies in force: *guard.Guard.
type isolator interface {
	Isolate(isolation.Site, []isolation.VO) error
}

// policies keeps in force what VOs and the machine's site say of isolation.
type policies struct {
	path   string
	bundle func() vom.Bundle
	fence  isolator
	log    *slog.Logger
	kick   chan struct{}

	site  isolation.Site
	text  []byte // of the file, as it was last read
	epoch uint64 // of the bundle that vos are from
	vos   []isolation.VO
	said  string // the last failure that was told

	serves []xos.VOName
	now    atomic.Pointer[xosv1.InForce]
}

func newPolicies(cfg config, bundle func() vom.Bundle, fence isolator, log *slog.Logger) *policies {
	return &policies{path: cfg.Isolation, bundle: bundle, fence: fence, log: log, serves: cfg.VOs, kick: make(chan struct{}, 1)}
}

// changed is told of a new bundle.
func (p *policies) changed(vom.Bundle) {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// run applies what changes until ctx ends.
func (p *policies) run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.kick:
		}
		err := p.apply()
		if err != nil && err.Error() != p.said {
			p.log.Error("policies of isolation did not change: what was in force stays", "error", err)
		}
		p.said = ""
		if err != nil {
			p.said = err.Error()
		}
	}
}

// apply reads the file again and takes the latest bundle. A file that is not
// good changes nothing; the VOs' own policies are applied all the same.
func (p *policies) apply() error {
	bad := p.reread()
	b := p.bundle()
	if p.vos == nil || p.epoch != b.Epoch || len(p.vos) != len(b.VOs) {
		vos := make([]isolation.VO, 0, len(b.VOs))
		for _, v := range b.VOs {
			vo := p.site.Take(v.Name, v.Isolation, time.Time{})
			if vo.Why != "" {
				p.log.Error("a VO's policy of isolation cannot be read: it shares nothing and may do least", "vo", v.Name, "why", vo.Why)
			}
			vos = append(vos, vo)
		}
		p.vos, p.epoch = vos, b.Epoch
	}
	vos := make([]isolation.VO, len(p.vos))
	for i, vo := range p.vos {
		vo.Until = until(b, b.VOs[i])
		vos[i] = vo
	}
	if err := p.fence.Isolate(p.site, vos); err != nil {
		return err
	}
	now := &xosv1.InForce{Epoch: p.epoch}
	for _, vo := range vos {
		if vo.From == isolation.Unreadable {
			now.Unread = append(now.Unread, string(vo.Name))
		}
	}
	p.now.Store(now)
	return bad
}

// inForce says which policies are in force: those of the last bundle with which
// that succeeded.
func (p *policies) inForce() *xosv1.InForce {
	said := &xosv1.InForce{}
	if now := p.now.Load(); now != nil {
		said.Epoch, said.Unread = now.Epoch, now.Unread
	}
	for _, vo := range p.serves {
		said.Vos = append(said.Vos, string(vo))
	}
	return said
}

// until is when a VO's word is too old: vom.Bundle.ServesUntil of one at hand, to
// the minute, since news come all the time and what changes only by them is no
// change. A bundle that nobody vouched for is too old, and not without an end.
func until(b vom.Bundle, v vom.VO) time.Time {
	offline := b.Offline
	if v.Offline > 0 {
		offline = min(offline, v.Offline)
	}
	if at := b.Issued.Add(offline).Truncate(time.Minute); at.After(time.Unix(0, 0)) {
		return at
	}
	return time.Unix(0, 0)
}

// reread takes the site's file if it has changed, and is good.
func (p *policies) reread() error {
	if p.path == "" {
		return nil
	}
	text, err := readPolicy(p.path)
	if err != nil {
		return err
	}
	if p.text != nil && bytes.Equal(text, p.text) {
		return nil
	}
	site, err := isolation.ParseSite(text)
	if err != nil {
		return xos.Errorf(xos.Invalid, "%s: %w", p.path, err)
	}
	if p.text != nil {
		p.log.Info("this machine's policy of isolation has changed", "file", p.path)
	}
	p.site, p.text, p.vos = site, text, nil
	return nil
}
