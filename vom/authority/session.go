package authority

import (
	"context"
	"crypto/ed25519"
	"net/netip"

	"github.com/smallstep/certificates/authority/provisioner"
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// SSHSession certifies a node's key for the session of a delegated identity,
// good from the node's addresses only.
func (a *Authority) SSHSession(ctx context.Context, pub ed25519.PublicKey, id vom.Identity, sources []netip.Addr) (string, error) {
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	return a.signSSH(ctx, key, provisioner.SSHUserCert, id.Serial, id.NotBefore, id.NotAfter, func(c *ssh.Certificate) error {
		return credential.FillSession(c, id, sources)
	}, id.Account.String())
}
