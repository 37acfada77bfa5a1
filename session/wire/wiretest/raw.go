package wiretest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// Listen serves each connection at path with f, until the test ends or stop is
// called. f need not close the connection.
func Listen(t testing.TB, path string, f func(*net.UnixConn)) (stop func()) {
	t.Helper()
	l := listen(t, path)
	var wait sync.WaitGroup
	var mu sync.Mutex
	open := map[*net.UnixConn]bool{}
	wait.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wait.Go(func() {
				f(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wait.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// ReadRequest takes a whole request from c.
func ReadRequest(c io.Reader) (op uint16, fields []byte, err error) {
	var h [16]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return 0, nil, err
	}
	fields = make([]byte, binary.LittleEndian.Uint32(h[8:]))
	_, err = io.ReadFull(c, fields)
	return binary.LittleEndian.Uint16(h[6:]), fields, err
}

// Message puts a header before fields.
func Message(op uint16, status uint32, fields []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0x57534f58)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint16(b, op)
	b = le.AppendUint32(b, uint32(len(fields)))
	b = le.AppendUint32(b, status)
	return append(b, fields...)
}

// Fields encodes int (as u32), string, []int and []string.
func Fields(values ...any) []byte {
	var b []byte
	u32 := func(v int) { b = binary.LittleEndian.AppendUint32(b, uint32(v)) }
	for _, v := range values {
		switch v := v.(type) {
		case int:
			u32(v)
		case string:
			u32(len(v))
			b = append(b, v...)
		case []int:
			u32(len(v))
			for _, x := range v {
				u32(x)
			}
		case []string:
			u32(len(v))
			for _, x := range v {
				u32(len(x))
				b = append(b, x...)
			}
		default:
			panic(fmt.Sprintf("no field of type %T", v))
		}
	}
	return b
}
