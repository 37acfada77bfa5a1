package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
)

// attach puts the programs in force. Those at cgroups are replaced in place;
// those at tracepoints go on if they are the same: with two of them at once an
// event would count twice, so that one of another version ends first.
func (m *meter) attach(spec *ebpf.CollectionSpec, jobs, logins, all string, taken bool, types *btf.Cache) error {
	mark := markOf(spec)
	replace := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{bpf.AccountMapUsed: m.used, bpf.AccountMapPlaces: m.places.m}, Cache: types}
	load := func(name string) (*ebpf.Collection, error) {
		c, err := ebpf.NewCollectionWithOptions(only(spec, name), replace)
		if err != nil {
			return nil, xos.Errorf(xos.NotSupported, "this kernel refuses %s: %w", name, err)
		}
		return c, nil
	}
	for _, p := range []struct {
		name, dir, pin string
		at             ebpf.AttachType
	}{
		{"xos_received", jobs, "received_jobs", ebpf.AttachCGroupInetIngress},
		{"xos_sent", jobs, "sent_jobs", ebpf.AttachCGroupInetEgress},
		{"xos_received_login", logins, "received_logins", ebpf.AttachCGroupInetIngress},
		{"xos_sent_login", logins, "sent_logins", ebpf.AttachCGroupInetEgress},
		{"xos_refused_sock_create", all, "refused_sock_create", ebpf.AttachCGroupInetSockCreate},
		{"xos_refused_connect4", all, "refused_connect4", ebpf.AttachCGroupInet4Connect},
		{"xos_refused_connect6", all, "refused_connect6", ebpf.AttachCGroupInet6Connect},
		{"xos_refused_sendmsg4", all, "refused_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
		{"xos_refused_sendmsg6", all, "refused_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
		{"xos_refused_device", all, "refused_device", ebpf.AttachCGroupDevice},
	} {
		if p.dir == "" {
			continue
		}
		c, err := load(p.name)
		if err != nil {
			return err
		}
		l, err := attach(p.dir, p.at, c.Programs[p.name], filepath.Join(m.pinDir, "link_account_"+p.pin), m.pinDir != "")
		c.Close()
		if err != nil {
			return xos.Errorf(xos.NotSupported, "attaching %s to %s: %w", p.name, p.dir, err)
		}
		m.links = append(m.links, l)
	}
	trace := func(name string, fire func() error, put func(*ebpf.Program) (link.Link, error)) error {
		pin := filepath.Join(m.pinDir, "link_account_"+mark+"_"+name)
		if taken && isLink(pin) {
			return nil
		}
		m.dropOld(name)
		c, err := load(name)
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := put(c.Programs[name])
		if err != nil {
			return xos.Errorf(xos.NotSupported, "attaching %s: %w", name, err)
		}
		if err := fires(c.Programs[name], fire); err != nil {
			l.Close()
			return err
		}
		if m.pinDir != "" {
			if err := l.Pin(pin); err != nil {
				l.Close()
				return xos.Errorf(xos.Internal, "pinning %s: %w", name, err)
			}
		}
		m.links = append(m.links, l)
		return nil
	}
	for program, event := range map[string]string{"xos_executed": "sched_process_exec", "xos_ended": "sched_process_exit"} {
		if err := trace(program, nil, func(p *ebpf.Program) (link.Link, error) {
			return link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: p})
		}); err != nil {
			return err
		}
	}
	m.opens = trace("xos_opened", openNull, func(p *ebpf.Program) (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceFExit})
	})
	return nil
}

// fires proves that a program runs when what it waits for happens.
func fires(p *ebpf.Program, fire func() error) error {
	if fire == nil {
		return nil
	}
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil // it cannot be told
	}
	defer counting.Close()
	if err := fire(); err != nil {
		return err
	}
	if st, err := p.Stats(); err == nil && st.RunCount == 0 {
		return xos.Errorf(xos.NotSupported, "%s loads but does not fire", p)
	}
	return nil
}

// dropOld ends a program of another version.
func (m *meter) dropOld(name string) {
	if m.pinDir == "" {
		return
	}
	pins, _ := filepath.Glob(filepath.Join(m.pinDir, "link_account_*_"+name))
	for _, pin := range pins {
		os.Remove(pin)
	}
}

// markOf names a version of the programs, at this depth.
func markOf(spec *ebpf.CollectionSpec) string {
	var base uint32
	sum := sha256.New()
	for _, program := range []string{"xos_executed", "xos_ended", "xos_opened"} {
		for _, ins := range spec.Programs[program].Instructions {
			fmt.Fprintln(sum, ins, ins.Reference(), ins.Symbol())
		}
	}
	err := spec.Variables["base"].Get(&base)
	fmt.Fprintln(sum, base, err)
	return hex.EncodeToString(sum.Sum(nil)[:4])
}
