package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/xtreemos/xos"
)

// anyone answers every request.
type anyone struct{}

func (anyone) GetPwNam(_ context.Context, _ Peer, a xos.Account) (Passwd, error) {
	return Passwd{Name: a.String(), UID: firstID, GID: firstID}, nil
}
func (anyone) GetPwUID(_ context.Context, _ Peer, id uint32) (Passwd, error) {
	return Passwd{Name: "a@b", UID: id, GID: id}, nil
}
func (anyone) GetGrNam(_ context.Context, _ Peer, name string) (Group, error) {
	return Group{Name: name, GID: lastID, Members: []string{"a@b"}}, nil
}
func (anyone) GetGrGID(_ context.Context, _ Peer, id uint32) (Group, error) {
	return Group{Name: "b", GID: id}, nil
}
func (anyone) InitGroups(context.Context, Peer, xos.Account) ([]uint32, error) {
	return []uint32{firstID}, nil
}
func (anyone) SubIDs(_ context.Context, _ Peer, a xos.Account) (uint32, uint32, error) {
	return firstID, uint32(len(a.User)), nil
}
func (anyone) SubIDOwner(_ context.Context, _ Peer, id uint32) (uint32, error) { return id, nil }
func (anyone) Principals(_ context.Context, _ Peer, r PrincipalsRequest) (string, error) {
	return r.Account.String(), nil
}
func (anyone) PAMAuth(_ context.Context, _ Peer, r PAMAuthRequest) error {
	if len(r.Password) > maxSecret {
		return errMalformed
	}
	return nil
}
func (anyone) PAMAccount(context.Context, Peer, PAMRequest) (string, error) {
	return "", nil
}
func (anyone) PAMOpen(context.Context, Peer, PAMOpenRequest) (PAMOpenReply, error) {
	return PAMOpenReply{Session: "s"}, nil
}
func (anyone) PAMClose(context.Context, Peer, xos.SessionID) error { return nil }

// FuzzRequest: a request is answered or refused, and only a grid's name or id
// is ever found.
func FuzzRequest(f *testing.F) {
	for o := range opSubIDOwner + 2 {
		for _, fill := range []func(*encoder){
			func(e *encoder) { e.str("alice@physics") },
			func(e *encoder) { e.str("root") },
			func(e *encoder) { e.u32(firstID) },
			func(e *encoder) { e.u32(1 << 31) },
			func(e *encoder) { e.pam(PAMRequest{Account: xos.Account{User: "a", VO: "b"}}); e.str("publickey x") },
		} {
			var e encoder
			fill(&e)
			f.Add(uint16(o), uint32(0), e.b)
		}
	}
	s := &server{h: anyone{}, log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, o uint16, uid uint32, body []byte) {
		r := s.answer(context.Background(), Peer{UID: uid, PIDFD: -1}, op(o), body)
		if r.err != nil {
			return
		}
		if op(o) >= opPAMAuth && op(o) <= opPAMClose && uid != 0 {
			t.Fatal("uid", uid, "may use PAM")
		}
		if op(o) == opGetPwNam {
			d := &decoder{b: r.body}
			if p := d.passwd(); d.end() != nil || p.UID < firstID {
				t.Fatalf("%q found %+v", body, p)
			}
		}
	})
}

// corpus gives the inputs of a kind that the modules' own decoders in C are
// fuzzed from too (test/fuzz).
func corpus(f *testing.F, kind string) [][]byte {
	paths, err := filepath.Glob(filepath.Join("testdata", kind, "*"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("there is no corpus: %v", err)
	}
	var all [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzReply: a reply is read or refused, never both; and one whose fields are
// taken has them written in the one way there is.
func FuzzReply(f *testing.F) {
	for _, s := range []status{stOK, stDenied, 77} {
		var e encoder
		e.str("alice@physics")
		b, _ := message(opPrincipals, s, e.b)
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(b[:7])
	}
	for _, b := range corpus(f, "reply") {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o := opPrincipals
		if len(b) >= headerSize {
			o = op(binary.LittleEndian.Uint16(b[6:]))
		}
		d, err := readReply(bytes.NewReader(b), o)
		if (d == nil) == (err == nil) {
			t.Fatalf("%v, %v", d, err)
		}
		if d == nil {
			return
		}
		fields := d.b
		var e encoder
		switch o {
		case opGetPwNam, opGetPwUID:
			e.passwd(d.passwd())
		case opGetGrNam, opGetGrGID:
			e.group(d.group())
		case opInitGroups:
			e.ids(d.ids())
		case opSubIDs:
			e.id(d.id())
			e.u32(d.u32())
		case opSubIDOwner:
			e.id(d.id())
		case opPAMOpen:
			e.str(d.str())
			e.strs(d.strs(maxBody))
			e.str(d.str())
			e.u32(d.u32())
		default:
			e.str(d.str())
		}
		if d.end() == nil && (e.err != nil || !bytes.Equal(e.b, fields)) {
			t.Fatalf("op %d: %q becomes %q, %v", o, fields, e.b, e.err)
		}
	})
}
