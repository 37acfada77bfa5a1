// Package wire is what is spoken on a virtual machine's serial ports: a
// greeting in lines, then HTTP/2, whose requests are commands. A request's body
// is a command's standard input, the response's body a sequence of frames.
package wire

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Ports is how many processes outside can use one machine at the same time.
const Ports = 4

// PortName is the virtio serial port number i, below /dev/virtio-ports.
func PortName(i int) string { return fmt.Sprintf("xos.%d", i) }

// Hello begins the line that opens a conversation; the rest of it comes back.
// What a conversation that broke off has left on the port is before it.
const Hello = "XOS-VM-HELLO "

// LongestFrame is the longest frame of HTTP/2 that the agent reads.
const LongestFrame = 16 << 10

// Header holds the encoded Spec of a request.
const Header = "X-Spec"

// Spec is a command.
type Spec struct {
	Argv []string
	// Env is the whole environment; empty is a small one of root's.
	Env []string `json:",omitempty"`
	// Dir is where it starts; empty is /root.
	Dir string `json:",omitempty"`
	// Rows and Columns, where set, give it a terminal of this size for all
	// three streams.
	Rows, Columns uint16 `json:",omitempty"`
}

// Encode makes a header's value of a Spec.
func (s Spec) Encode() (string, error) {
	data, err := json.Marshal(s)
	return base64.StdEncoding.EncodeToString(data), err
}

// DecodeSpec reads a header's value.
func DecodeSpec(text string) (Spec, error) {
	var s Spec
	data, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err == nil && len(s.Argv) == 0 {
		err = fmt.Errorf("no command")
	}
	return s, err
}

// Exit is how a command ended; it is the content of the last frame.
type Exit struct {
	Code int
	// Signal is the number of the one that ended it, or 0.
	Signal int `json:",omitempty"`
	// Error is set if it did not start.
	Error string `json:",omitempty"`
}

// Kinds of frames.
const (
	Stdout byte = 1
	Stderr byte = 2
	End    byte = 3
)

// maxFrame bounds a frame's content.
const maxFrame = 1 << 20

// Writer writes frames, from several goroutines.
type Writer struct {
	mu sync.Mutex
	to io.Writer
	// flush is called after each frame.
	flush func()
}

// NewWriter writes to w.
func NewWriter(w io.Writer, flush func()) *Writer { return &Writer{to: w, flush: flush} }

// Frame writes one.
func (w *Writer) Frame(kind byte, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(data)))
	if _, err := w.to.Write(append(head, data...)); err != nil {
		return err
	}
	w.flush()
	return nil
}

// Stream is an io.Writer whose writes become frames of a kind.
func (w *Writer) Stream(kind byte) io.Writer { return stream{w, kind} }

type stream struct {
	*Writer
	kind byte
}

func (s stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxFrame)
		if err := s.Frame(s.kind, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// Copy reads frames and writes their content to where it belongs, until the
// last one. nil discards. A sequence without a last frame is an error.
func Copy(r io.Reader, stdout, stderr io.Writer) (Exit, error) {
	var head [5]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return Exit{}, fmt.Errorf("the command's end is unknown: %w", err)
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size > maxFrame {
			return Exit{}, fmt.Errorf("a frame of %d bytes", size)
		}
		var to io.Writer
		switch head[0] {
		case Stdout:
			to = stdout
		case Stderr:
			to = stderr
		case End:
			data := make([]byte, size)
			if _, err := io.ReadFull(r, data); err != nil {
				return Exit{}, err
			}
			var e Exit
			return e, json.Unmarshal(data, &e)
		default:
			return Exit{}, fmt.Errorf("a frame of kind %d", head[0])
		}
		if to == nil {
			to = io.Discard
		}
		if _, err := io.CopyN(to, r, int64(size)); err != nil {
			return Exit{}, err
		}
	}
}
