package trust

import (
	"os"
	"path/filepath"

	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/krl"
	"github.com/xtreemos/xos/vom/machine"
)

// ListFile is the revocation list for sshd, in the directory of trust. Only
// root may read it: it tells who is banned.
const ListFile = "ssh_revoked.krl"

// list writes the revocation list for sshd, if it is not there or not current.
// While it cannot be written the last one stays; where there is none, sshd
// refuses all grid users. The next answer of the core tries again.
func (k *Keeper) list(b vom.Bundle) {
	if !k.cfg.Publish || b.Epoch == 0 {
		return
	}
	now := k.cfg.Now()
	path, due := filepath.Join(k.cfg.TrustDir, ListFile), krl.Due(b, now)
	if _, err := os.Stat(path); err == nil && k.listed == due {
		return
	}
	l, err := krl.FromBundle(b, now)
	var data []byte
	if err == nil {
		data, err = l.Encode()
	}
	if err == nil {
		err = machine.ReplaceFile(path, data, 0o600)
	}
	if err != nil {
		k.cfg.Log.Error("cannot write the revocation list for sshd", "path", path, "error", err)
		return
	}
	k.listed = due
}
