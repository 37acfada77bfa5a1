package wire

import (
	"bytes"
	"context"
	"log/slog"
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
	for o := range op(12) {
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
		if op(o) >= opPAMAuth && uid != 0 {
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

// FuzzReply: a reply is read or refused, never both.
func FuzzReply(f *testing.F) {
	for _, s := range []status{stOK, stDenied, 77} {
		var e encoder
		e.str("alice@physics")
		b, _ := message(opPrincipals, s, e.b)
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(b[:7])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := readReply(bytes.NewReader(b), opPrincipals)
		if (d == nil) == (err == nil) {
			t.Fatalf("%v, %v", d, err)
		}
	})
}
