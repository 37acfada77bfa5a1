package agent

import (
	"golang.org/x/crypto/ssh"

	"github.com/xtreemos/xos"
)

// userauthRequest is SSH_MSG_USERAUTH_REQUEST.
const userauthRequest = 50

// hostbound is the method of OpenSSH that names the server's key, too
// (PROTOCOL, section 3.1).
const hostbound = "publickey-hostbound-v00@openssh.com"

// isLogin reports whether data is what a client signs to log in as the account
// with the certificate blob (RFC 4252, section 7), and nothing else: what a
// user signs to consent to something, a TLS handshake and a job's order begin
// otherwise.
func isLogin(data []byte, a xos.Account, blob []byte) bool {
	var q struct {
		Session               []byte
		Type                  byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Blob                  []byte
		Rest                  []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(data, &q) != nil {
		return false
	}
	if len(q.Session) < 16 || len(q.Session) > 64 || q.Type != userauthRequest || q.User != a.String() || q.Service != "ssh-connection" ||
		!q.Signed || q.Algorithm != ssh.CertAlgoED25519v01 || string(q.Blob) != string(blob) {
		return false
	}
	switch q.Method {
	case "publickey":
		return len(q.Rest) == 0
	case hostbound:
		var host struct{ Key []byte }
		return ssh.Unmarshal(q.Rest, &host) == nil
	}
	return false
}
