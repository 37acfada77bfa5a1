package wallet

import (
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom/consent"
	"github.com/xtreemos/xos/vom/credential"
)

// Forwarded gives the account's own certificate in the ssh-agent at socket, the
// one that lasts longest; xos.NotFound if it has none.
func Forwarded(socket string, a xos.Account, now time.Time) (*ssh.Certificate, error) {
	client, done, err := dialAgent(socket)
	if err != nil {
		return nil, err
	}
	defer done()
	keys, err := client.List()
	if err != nil {
		return nil, xos.Errorf(xos.Unavailable, "listing the keys of ssh-agent: %w", err)
	}
	var best *ssh.Certificate
	for _, k := range keys {
		cert, err := credential.ParseSSH(k.Blob)
		if err != nil {
			continue // a plain key, or somebody else's certificate
		}
		id, err := credential.FromSSH(cert)
		if err != nil || id.Account != a || id.Node != "" || !now.Before(id.NotAfter) {
			continue
		}
		if best == nil || cert.ValidBefore > best.ValidBefore {
			best = cert
		}
	}
	if best == nil {
		return nil, xos.Errorf(xos.NotFound, "the ssh-agent has no certificate of %s", a).
			WithHint("where you came from: xos login %s; then log in with ssh -A", a)
	}
	return best, nil
}

// SignConsent has the ssh-agent at socket sign a consent with the key of a
// certificate that it has.
func SignConsent(socket string, cert *ssh.Certificate, content []byte) ([]byte, error) {
	client, done, err := dialAgent(socket)
	if err != nil {
		return nil, err
	}
	defer done()
	sig, err := client.Sign(cert, consent.ToSign(content))
	if err != nil {
		return nil, xos.Errorf(xos.Permission, "the ssh-agent does not sign: %w", err).
			WithHint("a key that was added for certain hosts only, or with confirmation, may refuse")
	}
	return ssh.Marshal(sig), nil
}
