package wire

import (
	"context"
	"os"
	"strings"

	"github.com/xtreemos/xos"
)

// reply is what will be sent: fields, or an error.
type reply struct {
	body []byte
	err  error
	// file goes with the reply and is closed after it.
	file *os.File
	// undo takes back what the request did, if the reply does not arrive.
	undo func(context.Context)
	// refused is called when the client has shown the error, see PAMOpenReply.
	refused func()
}

func (r reply) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func failed(err error) reply { return reply{err: err} }

// encoded gives the fields that fill has written.
func encoded(fill func(*encoder)) reply {
	var e encoder
	fill(&e)
	return reply{body: e.b, err: e.err}
}

var errNoName = xos.Errorf(xos.NotFound, "no such name")

// answer decodes a request, asks the handler and encodes what it says.
func (s *server) answer(ctx context.Context, p Peer, o op, body []byte) reply {
	d := &decoder{b: body}
	switch o {
	case opGetPwNam, opGetPwUID, opGetGrNam, opGetGrGID, opInitGroups:
		return s.lookup(ctx, p, o, d)
	case opPrincipals:
		a, ok := d.account()
		r := PrincipalsRequest{Account: a, KeyType: d.str(), Key: d.str()}
		if err := d.end(); err != nil {
			return failed(err)
		}
		if !ok {
			return failed(errNoName)
		}
		principal, err := s.h.Principals(ctx, p, r)
		if err != nil {
			return failed(err)
		}
		return encoded(func(e *encoder) { e.str(principal) })
	case opSubIDs, opSubIDOwner:
		return s.subordinate(ctx, p, o, d)
	case opPAMAuth, opPAMAccount, opPAMOpen, opPAMClose:
		if p.UID != 0 {
			return failed(xos.Errorf(xos.Permission, "only root's processes may ask this"))
		}
		return s.pam(ctx, p, o, d)
	}
	return failed(xos.Errorf(xos.NotSupported, "request %d is unknown here: the module is newer than xos-node", o))
}

func (s *server) lookup(ctx context.Context, p Peer, o op, d *decoder) reply {
	var (
		name string
		id   uint32
	)
	if o == opGetPwUID || o == opGetGrGID {
		id = d.u32()
	} else {
		name = d.str()
	}
	if err := d.end(); err != nil {
		return failed(err)
	}
	a, aerr := xos.ParseAccount(name)
	switch o {
	case opGetPwUID, opGetGrGID:
		if id < firstID || id > lastID {
			return failed(xos.Errorf(xos.NotFound, "%d is no grid id", id))
		}
	case opGetGrNam:
		if !ValidGroup(name) {
			return failed(errNoName)
		}
	default:
		if aerr != nil {
			return failed(errNoName)
		}
	}
	switch o {
	case opGetPwNam:
		pw, err := s.h.GetPwNam(ctx, p, a)
		return passwdReply(pw, err)
	case opGetPwUID:
		pw, err := s.h.GetPwUID(ctx, p, id)
		return passwdReply(pw, err)
	case opGetGrNam:
		g, err := s.h.GetGrNam(ctx, p, name)
		return groupReply(g, err)
	case opGetGrGID:
		g, err := s.h.GetGrGID(ctx, p, id)
		return groupReply(g, err)
	}
	gids, err := s.h.InitGroups(ctx, p, a)
	if err != nil {
		return failed(err)
	}
	return encoded(func(e *encoder) { e.ids(gids) })
}

// subordinate answers about subordinate ids, which are grid ids, too.
func (s *server) subordinate(ctx context.Context, p Peer, o op, d *decoder) reply {
	if o == opSubIDOwner {
		id := d.u32()
		if err := d.end(); err != nil {
			return failed(err)
		}
		if id < firstID || id > lastID {
			return failed(errNoName)
		}
		uid, err := s.h.SubIDOwner(ctx, p, id)
		if err != nil {
			return failed(err)
		}
		return encoded(func(e *encoder) { e.id(uid) })
	}
	a, ok := d.account()
	if err := d.end(); err != nil {
		return failed(err)
	}
	if !ok {
		return failed(errNoName)
	}
	first, count, err := s.h.SubIDs(ctx, p, a)
	if err != nil {
		return failed(err)
	}
	return encoded(func(e *encoder) {
		if e.id(first); count == 0 || count > lastID-first {
			e.err = xos.Errorf(xos.Internal, "%d subordinate ids from %d of %s", count, first, a)
		}
		e.u32(count)
	})
}

func passwdReply(p Passwd, err error) reply {
	if err != nil {
		return failed(err)
	}
	return encoded(func(e *encoder) { e.passwd(p) })
}

func groupReply(g Group, err error) reply {
	if err != nil {
		return failed(err)
	}
	return encoded(func(e *encoder) { e.group(g) })
}

func (s *server) pam(ctx context.Context, p Peer, o op, d *decoder) reply {
	if o == opPAMClose {
		id := xos.SessionID(d.str())
		if err := d.end(); err != nil {
			return failed(err)
		}
		return failed(s.h.PAMClose(ctx, p, id))
	}
	r, ok := d.pam()
	var password Secret
	info := ""
	switch o {
	case opPAMAuth:
		password = d.secret()
	case opPAMOpen:
		info = d.str()
	}
	if err := d.end(); err != nil {
		return failed(err)
	}
	if !ok {
		return failed(errNoName)
	}
	switch o {
	case opPAMAuth:
		return failed(s.h.PAMAuth(ctx, p, PAMAuthRequest{PAMRequest: r, Password: password}))
	case opPAMAccount:
		message, err := s.h.PAMAccount(ctx, p, r)
		if err != nil {
			return failed(err)
		}
		return encoded(func(e *encoder) { e.str(short(message)) })
	}
	return s.open(ctx, p, PAMOpenRequest{PAMRequest: r, AuthInfo: info})
}

func (s *server) open(ctx context.Context, p Peer, r PAMOpenRequest) reply {
	opened, err := s.h.PAMOpen(ctx, p, r)
	if err != nil {
		if opened.Namespace != nil {
			opened.Namespace.Close()
		}
		return reply{err: err, refused: opened.Refused}
	}
	out := encoded(func(e *encoder) {
		e.str(string(opened.Session))
		e.strs(opened.Env)
		e.str(short(opened.Message))
		if opened.Namespace != nil {
			e.u32(1)
		} else {
			e.u32(0)
		}
	})
	out.file = opened.Namespace
	out.undo = func(ctx context.Context) {
		if err := s.h.PAMClose(ctx, p, opened.Session); err != nil {
			s.log.Error("closing a session whose login is gone", "session", opened.Session, "err", err)
		}
	}
	return out
}

// short cuts a message to what the protocol allows.
func short(message string) string {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	return message
}

// ValidGroup reports whether name follows the grammar of grid groups: "vo",
// "vo:group" or "user@vo".
func ValidGroup(name string) bool {
	if _, err := xos.ParseAccount(name); err == nil {
		return true
	}
	vo, group, two := strings.Cut(name, ":")
	return xos.ValidName(vo) && !xos.ReservedName(vo) && (!two || xos.ValidName(group))
}
