package guard

import (
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

// manyRulings bounds what is told of one VO.
const manyRulings = 500

// policyList tells of each VO that has a policy, by name.
func (g *Guard) policyList() []*xosv1.GuardPolicy {
	g.policing.Lock()
	defer g.policing.Unlock()
	var list []*xosv1.GuardPolicy
	for _, vo := range g.policies.chosen() {
		list = append(list, g.told(vo, true))
	}
	return list
}

// policyOf tells of one VO; nil if it has no policy. Who does not see all is
// told of VOs that hers names, and not of those that name hers.
func (g *Guard) policyOf(name xos.VOName, all bool) *xosv1.GuardPolicy {
	g.policing.Lock()
	defer g.policing.Unlock()
	vo, ok := g.policies.vos[name]
	if !ok || vo.From == isolation.FromDefault && len(g.policies.site.Forbid) == 0 {
		return nil
	}
	return g.told(vo, all)
}

// chosen are the VOs that have a policy, by name.
func (p policies) chosen() []isolation.VO {
	var list []isolation.VO
	for _, vo := range p.vos {
		if vo.From != isolation.FromDefault {
			list = append(list, vo)
		}
	}
	slices.SortFunc(list, func(a, b isolation.VO) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list
}

// told puts a VO's policy into words. g.policing is held.
func (g *Guard) told(vo isolation.VO, all bool) *xosv1.GuardPolicy {
	site, now := g.policies.site, time.Now()
	m := &xosv1.GuardPolicy{Vo: string(vo.Name), SetBy: string(vo.From), Why: vo.Why}
	for _, r := range site.Forbidden(vo) {
		m.Forbidden = append(m.Forbidden, string(r))
	}
	for _, c := range site.Granted(vo) {
		m.Devices = append(m.Devices, string(c))
	}
	// Others are those with a policy, and those that this one names.
	others := g.policies.chosen()
	for _, name := range vo.Policy.Named() {
		if o, ok := g.policies.vos[name]; ok && o.From == isolation.FromDefault {
			others = append(others, o)
		} else if !ok {
			others = append(others, isolation.VO{Name: name, From: isolation.FromDefault})
		}
	}
	for _, o := range others {
		if o.Name == vo.Name {
			continue
		}
		for _, aim := range isolation.Aims {
			r := site.Decide(vo, o, aim, now)
			wanted := slices.Contains(vo.Policy.Share[aim], o.Name) || all && slices.Contains(o.Policy.Share[aim], vo.Name)
			if !wanted && !r.Shared || len(m.Sharing) == manyRulings {
				continue
			}
			// What counts is what the programs say.
			if shared, err := g.Shares(vo.Name, o.Name, aim); err == nil && shared != r.Shared {
				r = isolation.Ruling{Shared: shared, Why: "the table in force says so, and it is not yet what the policies say: " + r.Why}
			}
			m.Sharing = append(m.Sharing, &xosv1.GuardSharing{With: string(o.Name), Aim: string(aim), Shared: r.Shared, Why: r.Why})
		}
	}
	return m
}
