package trust

import (
	"context"
	"time"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
)

// publish writes the keys for sshd and ssh. What failed, or what a crash left
// undone, is done with the next answer of the core.
func (k *Keeper) publish(b vom.Bundle) error {
	if !k.cfg.Publish || k.published == b.Epoch {
		return nil
	}
	err := machine.StoreTrust(k.cfg.TrustDir, &xosv1.TrustResponse{X509Roots: b.X509Roots, SshUserCas: b.SSHUserCAs, SshHostCas: b.SSHHostCAs})
	if err != nil {
		return xos.Errorf(xos.KindOf(err), "writing the grid's keys to %s: %w", k.cfg.TrustDir, err)
	}
	k.published = b.Epoch
	return nil
}

// renew has the certificate renewed when a third of its life is left.
func (k *Keeper) renew(ctx context.Context, client xosv1connect.MachinesClient) {
	leaf := k.cert.Load().Leaf
	left := leaf.NotAfter.Sub(k.cfg.Now())
	if left > leaf.NotAfter.Sub(leaf.NotBefore)/3 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	renewed, err := machine.Renew(ctx, client, k.cert.Load(), k.cfg.HostKey)
	// The machine's own is written last: as long as it is the old one, all of
	// this is done again.
	if err == nil && renewed.SSHHostCertificate != "" && k.cfg.HostCert != "" {
		err = machine.ReplaceFile(k.cfg.HostCert, []byte(renewed.SSHHostCertificate+"\n"), 0o644)
	}
	if err == nil {
		err = renewed.Store(k.cfg.Dir)
	}
	if err == nil {
		err = k.loadCertificate()
	}
	if err != nil {
		k.cfg.Log.Error("renewing the machine's certificate", "left", left, "error", err)
	}
}
