package frame

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/xtreemos/xos"
)

// coder writes fields to buf or, if decoding, reads them from it: a message
// describes its fields once, for both. Integers are big-endian and of fixed
// size, strings and lists carry their length before them: every value has
// exactly one encoding. The first error stays, and later fields read as zero.
type coder struct {
	buf      []byte
	decoding bool
	err      error
}

// message is a set of fields with one encoding.
type message interface{ fields(c *coder) }

func encode(dst []byte, m message) ([]byte, error) {
	c := coder{buf: dst}
	m.fields(&c)
	return c.buf, c.err
}

// decode reads all of src; a byte too few or too many is an error. Strings
// are copied; byte slices alias src.
func decode(src []byte, m message) error {
	c := coder{buf: src, decoding: true}
	m.fields(&c)
	if c.err == nil && len(c.buf) != 0 {
		c.fail("%d bytes too many", len(c.buf))
	}
	return c.err
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = xos.Errorf(xos.Invalid, "malformed message: "+format, args...)
	}
	if c.decoding {
		c.buf = nil
	}
}

// take gives the next n bytes while decoding; nil when there are not so many.
func (c *coder) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.buf) {
		c.fail("%d bytes wanted, %d left", n, len(c.buf))
		return nil
	}
	b := c.buf[:n:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) u8(p *uint8) {
	if !c.decoding {
		c.buf = append(c.buf, *p)
	} else if b := c.take(1); b != nil {
		*p = b[0]
	}
}

func (c *coder) u32(p *uint32) {
	if !c.decoding {
		c.buf = binary.BigEndian.AppendUint32(c.buf, *p)
	} else if b := c.take(4); b != nil {
		*p = binary.BigEndian.Uint32(b)
	}
}

func (c *coder) u64(p *uint64) {
	if !c.decoding {
		c.buf = binary.BigEndian.AppendUint64(c.buf, *p)
	} else if b := c.take(8); b != nil {
		*p = binary.BigEndian.Uint64(b)
	}
}

func (c *coder) i64(p *int64) {
	u := uint64(*p)
	c.u64(&u)
	*p = int64(u)
}

// size is a length, count or offset: never negative.
func (c *coder) size(p *int64) {
	if !c.decoding && *p < 0 {
		c.fail("negative size %d", *p)
		return
	}
	c.i64(p)
	if *p < 0 {
		*p = 0
		c.fail("negative size")
	}
}

func (c *coder) integer(p *int) {
	v := int64(*p)
	c.i64(&v)
	if v > math.MaxInt32 || v < math.MinInt32 {
		c.fail("integer out of range")
		v = 0
	}
	*p = int(v)
}

func (c *coder) boolean(p *bool) {
	var v uint8
	if *p {
		v = 1
	}
	c.u8(&v)
	if v > 1 {
		c.fail("boolean %d", v)
	}
	*p = v == 1
}

// count codes how many of something follow; each takes at least min bytes, so
// that a lying count cannot make the decoder allocate.
func (c *coder) count(n, min int) int {
	v := uint32(n)
	c.u32(&v)
	if c.decoding && c.err == nil && int64(v)*int64(min) > int64(len(c.buf)) {
		c.fail("count %d", v)
	}
	if c.err != nil {
		return 0
	}
	return int(v)
}

// bytes codes up to max bytes; decoded, they alias the source.
func (c *coder) bytes(p *[]byte, max int) {
	if !c.decoding && len(*p) > max {
		c.fail("%d bytes, at most %d", len(*p), max)
		return
	}
	n := c.count(len(*p), 1)
	if !c.decoding {
		c.buf = append(c.buf, *p...)
		return
	}
	if n > max {
		c.fail("%d bytes, at most %d", n, max)
		n = 0
	}
	*p = c.take(n)
}

func str[S ~string](c *coder, p *S, max int) {
	if !c.decoding {
		if len(*p) > max {
			c.fail("string of %d bytes, at most %d", len(*p), max)
			return
		}
		c.count(len(*p), 1)
		c.buf = append(c.buf, *p...)
		return
	}
	var b []byte
	c.bytes(&b, max)
	*p = S(b)
}

// time codes seconds and nanoseconds; decoded times are in UTC.
func (c *coder) time(p *time.Time) {
	sec, nsec := p.Unix(), uint32(p.Nanosecond())
	c.i64(&sec)
	c.u32(&nsec)
	if nsec >= 1e9 {
		c.fail("%d nanoseconds", nsec)
		nsec = 0
	}
	if c.decoding {
		*p = time.Unix(sec, int64(nsec)).UTC()
	}
}

// optional codes whether *p is there and then what it points to.
func optional[T any](c *coder, p **T, f func(*T)) {
	there := *p != nil
	c.boolean(&there)
	if !there || c.err != nil {
		if c.decoding {
			*p = nil
		}
		return
	}
	if c.decoding {
		*p = new(T)
	}
	f(*p)
}

// list codes up to max elements of at least min bytes each.
func list[T any](c *coder, p *[]T, min, max int, f func(*T)) {
	n := c.count(len(*p), min)
	if n > max {
		c.fail("%d elements, at most %d", n, max)
		return
	}
	if c.decoding {
		*p = nil
		if n > 0 && c.err == nil {
			*p = make([]T, n)
		}
	}
	for i := range *p {
		f(&(*p)[i])
	}
}
