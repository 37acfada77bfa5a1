package trust

import "github.com/xtreemos/xos"

// tellStale says in the log, once, which VOs are not served any more because
// there have been no news of them for too long, and when they are again.
func (k *Keeper) tellStale() {
	b, now := k.Bundle(), k.cfg.Now()
	if b.Epoch == 0 {
		return
	}
	if k.stale == nil {
		k.stale = map[xos.VOName]bool{}
	}
	for _, vo := range b.VOs {
		until := b.ServesUntil(vo.Name)
		switch stale := now.After(until); {
		case stale && !k.stale[vo.Name]:
			k.stale[vo.Name] = true
			k.cfg.Log.Error("too long without news from the core: this VO is not served any more", "vo", vo.Name, "news", b.Issued, "until", until)
		case !stale && k.stale[vo.Name]:
			delete(k.stale, vo.Name)
			k.cfg.Log.Info("there are news from the core again: this VO is served", "vo", vo.Name)
		}
	}
}
