package userdb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxCall is the longest message that is read: a question holds a name.
	maxCall = 4096
	// silence is how long a client may take for its next message, and patience
	// for taking an answer.
	silence  = 10 * time.Second
	patience = 5 * time.Second
)

// call is one message of a client's. Parameters are looked up by their exact
// names: decoding into a struct would take "USERNAME" for "userName".
type call struct {
	method       string
	parameters   map[string]json.RawMessage
	more, oneway bool
}

var errMalformed = errors.New("malformed message")

// decodeCall reads a message without the NUL that ended it.
func decodeCall(b []byte) (call, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil || fields == nil {
		return call{}, errMalformed
	}
	var c call
	var upgrade bool
	for name, to := range map[string]any{"method": &c.method, "parameters": &c.parameters,
		"more": &c.more, "oneway": &c.oneway, "upgrade": &upgrade} {
		if raw, ok := fields[name]; ok && json.Unmarshal(raw, to) != nil {
			return call{}, errMalformed
		}
	}
	// Nothing here speaks another protocol after an upgrade.
	if c.method == "" || upgrade {
		return call{}, errMalformed
	}
	return c, nil
}

// reply is one message to a client: parameters, or those of an error.
type reply struct {
	Parameters any    `json:"parameters,omitempty"`
	Continues  bool   `json:"continues,omitempty"`
	Error      string `json:"error,omitempty"`
}

// converse answers one question after the other. Whoever is silent, slow or
// does not speak varlink is hung up on.
func (s *Server) converse(c *net.UnixConn, uid uint32) {
	in := bufio.NewReaderSize(c, maxCall)
	out := bufio.NewWriter(c)
	for {
		c.SetDeadline(time.Now().Add(silence))
		b, err := in.ReadSlice(0)
		if err != nil {
			return // also what is too long
		}
		q, err := decodeCall(bytes.TrimSuffix(b, []byte{0}))
		if err != nil {
			return
		}
		replies := s.answer(uid, q)
		if q.oneway {
			continue
		}
		c.SetDeadline(time.Now().Add(patience))
		if send(out, replies) != nil {
			return
		}
	}
}

// send writes the replies to one call; all but the last say that more come.
func send(out *bufio.Writer, replies []reply) error {
	for i, r := range replies {
		r.Continues = i < len(replies)-1
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(b, 0)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// peerOf asks the kernel whose process has connected.
func peerOf(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
