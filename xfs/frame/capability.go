package frame

import (
	"crypto/ed25519"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/xfs"
)

// capabilityContext keeps a capability's signature from ever being taken for
// that of something else.
const capabilityContext = "xos capability 1\x00"

const (
	maxVolume  = 128
	maxAccount = 2*xos.MaxName + 1
	maxGroup   = 2*xos.MaxName + 1
	maxAddress = 300
)

// claims are what of a capability is signed.
type claims struct{ *xfs.Capability }

func (m claims) fields(c *coder) {
	fileID(c, &m.File)
	c.u8((*uint8)(&m.Rights))
	str(c, &m.Node, xos.MaxName)
	str(c, &m.Account, maxAccount)
	c.u64(&m.Epoch)
	c.time(&m.Expires)
}

type capability struct{ *xfs.Capability }

func (m capability) fields(c *coder) {
	claims(m).fields(c)
	c.bytes(&m.Signature, ed25519.SignatureSize)
	if c.decoding {
		m.Signature = append([]byte(nil), m.Signature...)
	}
}

func fileID(c *coder, f *xfs.FileID) {
	str(c, &f.Volume, maxVolume)
	c.u64((*uint64)(&f.Inode))
}

// Sign signs c with the metadata service's key.
func Sign(c *xfs.Capability, key ed25519.PrivateKey) error {
	msg, err := encode([]byte(capabilityContext), claims{c})
	if err != nil {
		return err
	}
	c.Signature = ed25519.Sign(key, msg)
	return nil
}

// Verify checks the signature and the expiry of c. A forged one is
// xos.Permission, an old one xos.Expired.
func Verify(c *xfs.Capability, key ed25519.PublicKey, now time.Time) error {
	if len(key) != ed25519.PublicKeySize {
		return xos.Errorf(xos.Unavailable, "the key that verifies capabilities is not known yet")
	}
	msg, err := encode([]byte(capabilityContext), claims{c})
	if err != nil || len(c.Signature) != ed25519.SignatureSize || !ed25519.Verify(key, msg, c.Signature) {
		return xos.Errorf(xos.Permission, "the capability is not genuine")
	}
	if !now.Before(c.Expires) {
		return xos.Errorf(xos.Expired, "the capability has expired")
	}
	return nil
}

// EncodeCapability gives the one encoding of a capability, signature included:
// the same bytes for the same capability, so that they may be a cache's key.
func EncodeCapability(c *xfs.Capability) ([]byte, error) { return encode(nil, capability{c}) }

// DecodeCapability is the inverse of EncodeCapability.
func DecodeCapability(b []byte) (xfs.Capability, error) {
	var c xfs.Capability
	err := decode(b, capability{&c})
	return c, err
}
