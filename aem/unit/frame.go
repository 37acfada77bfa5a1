package unit

import (
	"bufio"
	"encoding/binary"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
)

// MaxFrame is the longest frame, in bytes without its length.
const MaxFrame = 256 << 10

// MaxData is how much of a stream one frame carries at most.
const MaxData = 64 << 10

// WriteFrame sends m: its length (four bytes, big-endian), then its protobuf
// encoding, in one write.
func WriteFrame(w io.Writer, m proto.Message) error {
	buf := make([]byte, 4, 4+proto.Size(m))
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, m)
	if err != nil {
		return err
	}
	if len(buf)-4 > MaxFrame {
		return xos.Errorf(xos.TooLarge, "a frame of %d bytes exceeds %d", len(buf)-4, MaxFrame)
	}
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-4))
	_, err = w.Write(buf)
	return err
}

// ReadFrame receives what WriteFrame sent; io.EOF only between two frames.
func ReadFrame(r *bufio.Reader, m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return xos.Errorf(xos.Invalid, "a frame claims %d bytes, more than %d", n, MaxFrame)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(buf, m); err != nil {
		return xos.Errorf(xos.Invalid, "a frame is no message: %w", err)
	}
	return nil
}
