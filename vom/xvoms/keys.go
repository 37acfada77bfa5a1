package xvoms

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom"
)

// Keys. No name contains a '/', so the paths are unambiguous.
const (
	keyEpoch = "vom/epoch" // 8 bytes, big-endian
	keyTrust = "vom/trust" // SHA-256 of the configured trust

	prefixVO       = "vom/vo/"       // NAME → voRecord
	prefixUser     = "vom/user/"     // NAME → userRecord
	prefixGone     = "vom/gone/"     // NAME → when: a deleted user who had files
	prefixMember   = "vom/member/"   // VO/USER → memberRecord
	prefixMemberOf = "vom/memberof/" // USER/VO → nothing
	prefixToken    = "vom/token/"    // USER/SHA256 → tokenRecord
	prefixRevoked  = "vom/revoked/"  // user/USER, account/VO/USER, vo/VO, node/NODE, serial/SERIAL → revocationRecord
	prefixIssued   = "vom/issued/"   // SERIAL → issuedRecord
	prefixMachine  = "vom/machine/"  // NODE/SERVICE → machineRecord
	prefixJoin     = "vom/join/"     // ID → joinRecord
)

func keyVO(vo xos.VOName) string       { return prefixVO + string(vo) }
func keyUser(u xos.UserID) string      { return prefixUser + string(u) }
func keyMember(a xos.Account) string   { return prefixMember + string(a.VO) + "/" + string(a.User) }
func keyMemberOf(a xos.Account) string { return prefixMemberOf + string(a.User) + "/" + string(a.VO) }
func keyMachine(n xos.NodeID, s vom.Service) string {
	return prefixMachine + string(n) + "/" + string(s)
}

// read gives the record at key, and whether it is there.
func read[T any](t kv.Txn, key string) (v T, ok bool, err error) {
	b, ok, err := t.Get([]byte(key))
	if err != nil || !ok {
		return v, false, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, false, fmt.Errorf("record %s: %w", key, err)
	}
	return v, true, nil
}

func write(t kv.Txn, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.Put([]byte(key), b)
}

// each calls f for every record below prefix with the rest of its key.
func each[T any](t kv.Txn, prefix string, f func(rest string, v T) error) error {
	return t.Range([]byte(prefix), kv.PrefixEnd([]byte(prefix)), func(key, value []byte) (bool, error) {
		var v T
		if len(value) > 0 {
			if err := json.Unmarshal(value, &v); err != nil {
				return false, fmt.Errorf("record %s: %w", key, err)
			}
		}
		err := f(string(key[len(prefix):]), v)
		return err == nil, err
	})
}

func epoch(t kv.Txn) (uint64, error) {
	b, ok, err := t.Get([]byte(keyEpoch))
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("record %s has %d bytes", keyEpoch, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// bump counts the epoch up: once in each transaction that changes what
// machines know.
func bump(t kv.Txn) error {
	e, err := epoch(t)
	if err != nil {
		return err
	}
	return t.Put([]byte(keyEpoch), binary.BigEndian.AppendUint64(nil, e+1))
}
