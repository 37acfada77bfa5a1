package guard

import (
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

// policies are those that this process put in force.
type policies struct {
	set   bool
	site  isolation.Site
	vos   map[xos.VOName]isolation.VO
	table isolation.Table
	rules map[bpf.VonetXosRuleKey]bpf.VonetXosRule // without ends
}

// Isolate puts policies of isolation in force, all at once, in the place of
// those that were: who decides meanwhile has the old ones or the new. A VO that
// is not among them shares nothing. On an error the old ones stay.
//
// They are pinned, and what a VO shares ends by itself when its time is over,
// whether or not this process lives.
func (g *Guard) Isolate(site isolation.Site, vos []isolation.VO) error {
	if g.labels == nil {
		return xos.Errorf(xos.NotSupported, "this machine has no programs that keep VOs apart")
	}
	g.policing.Lock()
	defer g.policing.Unlock()
	table, err := site.Compile(vos, g.labels.names.number)
	if err != nil {
		return err
	}
	next := policies{set: true, site: site, vos: make(map[xos.VOName]isolation.VO, len(vos)), table: table, rules: rulesOf(table, site)}
	for _, vo := range vos {
		next.vos[vo.Name] = vo
	}
	if g.policies.set && reflect.DeepEqual(g.policies.table, table) && maps.Equal(g.policies.rules, next.rules) {
		old := g.policies
		g.policies = next // in words, and ceilings
		g.boundAnew(old)
		return nil
	}
	if err := g.network.replaceRules(withEnds(next.rules, table)); err != nil {
		return err
	}
	old := g.policies
	g.policies = next
	g.boundAnew(old)
	return nil
}

// ceilingsOf gives what a VO's jobs may use together: what the site lets them,
// or less where the VO says so. A ceiling of its own that this machine cannot
// make anything of is an error.
func (g *Guard) ceilingsOf(vo xos.VOName) (Ceilings, error) {
	g.policing.Lock()
	defer g.policing.Unlock()
	return g.lowered(g.policies.vos[vo])
}

func (g *Guard) lowered(vo isolation.VO) (Ceilings, error) {
	own := vo.Policy.Ceilings
	if own == (isolation.Ceilings{}) {
		return g.ofVO, nil
	}
	machine, err := ThisMachine()
	if err != nil {
		return Ceilings{}, xos.Errorf(xos.Internal, "bounding the VO %s: %w", vo.Name, err)
	}
	most, err := Portions(own).On(machine)
	if err != nil {
		return Ceilings{}, xos.Errorf(xos.Invalid, "the policy of isolation of the VO %s cannot be kept here: %w", vo.Name, err)
	}
	return most.under(g.ofVO), nil
}

// boundAnew bounds the VOs with jobs here whose ceilings are not those that they
// were. g.policing is held.
func (g *Guard) boundAnew(old policies) {
	dirs, _ := filepath.Glob(filepath.Join(g.cgroups.root, g.cgroups.subtree, "vo-*"))
	for _, dir := range dirs {
		name := xos.VOName(strings.TrimPrefix(filepath.Base(dir), "vo-"))
		vo := g.policies.vos[name]
		if vo.Policy.Ceilings == old.vos[name].Policy.Ceilings {
			continue
		}
		most, err := g.lowered(vo)
		if err == nil {
			err = most.bound(dir)
		}
		if err != nil {
			g.log.Error("what a VO's jobs may use is as it was", "vo", name, "error", err)
		}
	}
}

// rulesOf writes a table as the programs read it, but for the ends of sharing.
func rulesOf(t isolation.Table, site isolation.Site) map[bpf.VonetXosRuleKey]bpf.VonetXosRule {
	rules := map[bpf.VonetXosRuleKey]bpf.VonetXosRule{voKey(0): {Closed: t.Default.Forbid << 1}}
	devices := map[isolation.Class][]bpf.VonetXosRuleKey{}
	for class, patterns := range site.Devices {
		devices[class] = devicesAt(patterns)
	}
	for num, e := range t.VOs {
		// The first surface is no choice of anybody's.
		rules[voKey(num)] = bpf.VonetXosRule{Shared: uint32(e.Any), Closed: e.Forbid << 1}
		for _, class := range e.Devices {
			for _, d := range devices[class] {
				d.A = num
				rules[d] = bpf.VonetXosRule{}
			}
		}
	}
	for pair, p := range t.Pairs {
		rules[pairKey(pair)] = bpf.VonetXosRule{Shared: uint32(p.Aims)}
	}
	return rules
}

// withEnds adds until when the kernel's clock has what is shared to last.
func withEnds(rules map[bpf.VonetXosRuleKey]bpf.VonetXosRule, t isolation.Table) map[bpf.VonetXosRuleKey]bpf.VonetXosRule {
	rules = maps.Clone(rules)
	now, boot := time.Now(), sinceBoot()
	end := func(key bpf.VonetXosRuleKey, until time.Time) {
		r := rules[key]
		switch left := until.Sub(now); {
		case until.IsZero():
			r.Until = 1<<64 - 1
		case left > 0:
			r.Until = uint64(boot + left)
		}
		rules[key] = r
	}
	for num, e := range t.VOs {
		end(voKey(num), e.Until)
	}
	for pair, p := range t.Pairs {
		end(pairKey(pair), p.Until)
	}
	return rules
}

func voKey(num uint32) bpf.VonetXosRuleKey {
	return bpf.VonetXosRuleKey{Kind: uint32(bpf.VonetXosRuleKindXOS_RULE_VO), A: num}
}

func pairKey(p [2]uint32) bpf.VonetXosRuleKey {
	return bpf.VonetXosRuleKey{Kind: uint32(bpf.VonetXosRuleKindXOS_RULE_PAIR), A: p[0], B: p[1]}
}

// sinceBoot is the clock that the programs read.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // then what ends is over
	}
	return time.Duration(ts.Nano())
}

// replaceRules fills a new table and has it take the old one's place. When it
// returns nobody decides by the old one any more.
func (n *network) replaceRules(rules map[bpf.VonetXosRuleKey]bpf.VonetXosRule) error {
	spec, err := bpf.LoadVonet()
	if err != nil {
		return xos.Errorf(xos.Internal, "reading the network programs: %w", err)
	}
	inner := spec.Maps[bpf.VonetMapIsolation].InnerMap.Copy()
	inner.MaxEntries = uint32(len(rules))
	m, err := ebpf.NewMap(inner)
	if err != nil {
		return xos.Errorf(xos.Unavailable, "making a table of isolation with %d entries: %w", len(rules), err)
	}
	defer m.Close()
	keys := slices.Collect(maps.Keys(rules))
	values := make([]bpf.VonetXosRule, len(keys))
	for i, k := range keys {
		values[i] = rules[k]
	}
	if _, err := m.BatchUpdate(keys, values, nil); errors.Is(err, ebpf.ErrNotSupported) {
		for i := range keys {
			if err := m.Put(keys[i], values[i]); err != nil {
				return xos.Errorf(xos.Unavailable, "filling a table of isolation: %w", err)
			}
		}
	} else if err != nil {
		return xos.Errorf(xos.Unavailable, "filling a table of isolation: %w", err)
	}
	if err := n.objs.Isolation.Put(uint32(0), m); err != nil {
		return xos.Errorf(xos.Unavailable, "putting a table of isolation in force: %w", err)
	}
	return nil
}

// Shares says whether two VOs share an aim here, as the kernel's table has it:
// a program that decides as the others do is asked.
func (g *Guard) Shares(a, b xos.VOName, aim isolation.Aim) (bool, error) {
	if g.network == nil || g.network.ask == nil || g.labels == nil {
		return false, xos.Errorf(xos.NotSupported, "this kernel cannot be asked what VOs share")
	}
	x, err := g.labels.names.number(a)
	if err != nil {
		return false, err
	}
	y, err := g.labels.names.number(b)
	if err != nil {
		return false, err
	}
	place := slices.Index(isolation.Aims, aim)
	if place < 0 {
		return false, xos.Errorf(xos.Invalid, "%.40q is no aim", aim)
	}
	question := bpf.VonetXosQuestion{Vo: x, Other: y, Aim: uint32(place)}
	var answer bpf.VonetXosQuestion
	if _, err := g.network.ask.Run(&ebpf.RunOptions{Context: question, ContextOut: &answer}); err != nil {
		return false, xos.Errorf(xos.Unavailable, "asking the table of isolation: %w", err)
	}
	return answer.Shared == 1, nil
}
