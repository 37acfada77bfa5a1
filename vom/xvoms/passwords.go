package xvoms

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/xtreemos/xos"
)

// Argon2id with the second of RFC 9106's recommended parameters scaled to a
// core that many may ask at once: 32 MiB, 3 passes, one lane; about 60 ms.
const (
	argonTime   = 3
	argonMemory = 32 << 10 // KiB
	saltLen     = 16
	hashLen     = 32

	minPassword = 8
	maxPassword = 256
)

// hash encodes a password: "argon2id$time$memory$salt$hash".
func (r *Records) hash(ctx context.Context, password string) (string, error) {
	if len(password) < minPassword || len(password) > maxPassword {
		return "", xos.Errorf(xos.Invalid, "a password must have %d to %d bytes", minPassword, maxPassword)
	}
	var salt [saltLen]byte
	rand.Read(salt[:])
	key, err := r.argon(ctx, password, salt[:], argonTime, argonMemory)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding
	return fmt.Sprintf("argon2id$%d$%d$%s$%s", argonTime, argonMemory, enc.EncodeToString(salt[:]), enc.EncodeToString(key)), nil
}

// matches compares a password with its encoding. An empty or unknown encoding
// takes as long as a true one and never matches.
func (r *Records) matches(ctx context.Context, password, encoded string) (bool, error) {
	var passes, memory uint32
	var salt, want []byte
	if parts := strings.Split(encoded, "$"); len(parts) == 5 && parts[0] == "argon2id" {
		if _, err := fmt.Sscanf(parts[1]+" "+parts[2], "%d %d", &passes, &memory); err != nil {
			return false, err
		}
		var err1, err2 error
		salt, err1 = base64.RawStdEncoding.DecodeString(parts[3])
		want, err2 = base64.RawStdEncoding.DecodeString(parts[4])
		if err1 != nil || err2 != nil || passes == 0 || memory == 0 || len(want) != hashLen {
			return false, fmt.Errorf("a password record is malformed")
		}
	} else {
		passes, memory, salt, want = argonTime, argonMemory, make([]byte, saltLen), nil
	}
	if len(password) > maxPassword {
		return false, nil
	}
	got, err := r.argon(ctx, password, salt, passes, memory)
	if err != nil {
		return false, err
	}
	return len(want) == hashLen && subtle.ConstantTimeCompare(got, want) == 1, nil
}

func (r *Records) argon(ctx context.Context, password string, salt []byte, passes, memory uint32) ([]byte, error) {
	select {
	case r.hashing <- struct{}{}:
		defer func() { <-r.hashing }()
	case <-ctx.Done():
		return nil, xos.Errorf(xos.Unavailable, "too many logins at once: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password), salt, passes, memory, 1, hashLen), nil
}
