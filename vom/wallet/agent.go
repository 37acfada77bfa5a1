package wallet

import (
	"bytes"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/xtreemos/xos"
)

// AddToAgent puts the credential into the ssh-agent at socket, for as long as
// it is valid, in place of the account's earlier ones.
func AddToAgent(socket string, c Credential) error {
	client, done, err := dialAgent(socket)
	if err != nil {
		return err
	}
	defer done()
	if err := removeFrom(client, c.Account); err != nil {
		return err
	}
	left := time.Until(c.NotAfter)
	if left < time.Second {
		return xos.Errorf(xos.Expired, "the credential of %s has expired", c.Account)
	}
	err = client.Add(agent.AddedKey{
		PrivateKey:   c.TLS.PrivateKey,
		Certificate:  c.SSH,
		Comment:      c.Account.String(),
		LifetimeSecs: uint32(left / time.Second),
	})
	if err != nil {
		return xos.Errorf(xos.Unavailable, "adding the key to ssh-agent: %w", err)
	}
	return nil
}

// RemoveFromAgent takes all keys of the account out of the ssh-agent.
func RemoveFromAgent(socket string, a xos.Account) error {
	client, done, err := dialAgent(socket)
	if err != nil {
		return err
	}
	defer done()
	return removeFrom(client, a)
}

func dialAgent(socket string) (agent.Agent, func(), error) {
	conn, err := net.DialTimeout("unix", socket, 2*time.Second)
	if err != nil {
		return nil, nil, xos.Errorf(xos.Unavailable, "reaching ssh-agent: %w", err)
	}
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return agent.NewClient(conn), func() { conn.Close() }, nil
}

// removeFrom goes by certificates for the account's principal, so that a key
// of hers that merely has the same comment stays.
func removeFrom(client agent.Agent, a xos.Account) error {
	keys, err := client.List()
	if err != nil {
		return xos.Errorf(xos.Unavailable, "listing the keys of ssh-agent: %w", err)
	}
	for _, k := range keys {
		parsed, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue
		}
		cert, ok := parsed.(*ssh.Certificate)
		if !ok || len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != a.String() {
			continue
		}
		if !bytes.HasPrefix([]byte(k.Comment), []byte(a.String())) {
			continue
		}
		if err := client.Remove(parsed); err != nil {
			return xos.Errorf(xos.Unavailable, "removing a key from ssh-agent: %w", err)
		}
	}
	return nil
}
