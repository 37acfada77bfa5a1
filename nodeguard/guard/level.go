package guard

import (
	"slices"
	"strings"

	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
)

// note remembers of a measure whether it is there. Only before Run.
func (g *Guard) note(name string, err error) {
	g.features = append(g.features, feature(name, err))
}

func feature(name string, err error) nodeguard.Feature {
	f := nodeguard.Feature{Name: name, Have: err == nil}
	if err != nil {
		f.Why = err.Error()
	}
	return f
}

// conclude gives the level that measures make.
func conclude(features []nodeguard.Feature) nodeguard.Level {
	missing := map[string]bool{"cgroup": true, "hidepid": true, "network": true}
	fired, all := false, true
	for _, f := range features {
		if _, needed := missing[f.Name]; needed {
			missing[f.Name] = !f.Have
		}
		if kind, aim, _ := strings.Cut(f.Name, " "); kind == "lsm" {
			fired, all = fired || aim != "", all && f.Have
		}
	}
	switch {
	case missing["cgroup"] || missing["hidepid"] || missing["network"]:
		return nodeguard.LevelNone
	case fired && all:
		return nodeguard.LevelA
	}
	return nodeguard.LevelC
}

// Level implements nodeguard.Guard.
func (g *Guard) Level() (nodeguard.Level, []nodeguard.Feature) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.level, slices.Clone(g.features)
}

// strength orders the levels.
var strength = []nodeguard.Level{nodeguard.LevelNone, nodeguard.LevelC, nodeguard.LevelA}

// check fires what can stop to hold. What does not hold any more lowers the
// level, until the next start: what came back by itself may go again.
func (g *Guard) check() {
	g.testing.Lock()
	now := []nodeguard.Feature{feature("hidepid", g.probeNamespace())}
	if g.network != nil {
		now = append(now, feature("network", g.network.fire()), feature("devices", g.network.fireDevices()))
	}
	if g.lsm != nil {
		now = append(now, g.lsm.probe()...)
		if err := fillLists(g.lsm.maps[bpf.LsmMapSocketLists]); err != nil {
			g.log.Error("lists of sockets may be read that are not known", "error", err)
		}
	}
	g.testing.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range now {
		i := slices.IndexFunc(g.features, func(old nodeguard.Feature) bool { return old.Name == f.Name })
		if i < 0 || !g.features[i].Have || f.Have {
			continue
		}
		g.features[i] = f
		g.log.Error("a measure of isolation does not hold any more", "measure", f.Name, "why", f.Why)
	}
	if l := conclude(g.features); slices.Index(strength, l) < slices.Index(strength, g.level) {
		g.log.Error("this machine's level of isolation is lower until xos-node is restarted", "was", g.level, "is", l)
		g.level = l
	}
}
