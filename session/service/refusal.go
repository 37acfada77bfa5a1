package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/vom"
)

const (
	maxLately = 4096 // refusals that are not written down again
	maxKept   = 1024 // refusals that can be explained in full, and again of those without a line
	maxOfOne  = 16   // of those without a line, of one origin
	// again is for how long the same refusal is not written down a second
	// time: sshd asks twice, and a stranger may ask for ever.
	again = 2 * time.Second
	// refusalPrefix begins the id of a refused login, as "s-" does a session's.
	refusalPrefix = "r-"
)

// refusal is a login that was refused, as it can be asked about by its id. The
// id stands in sshd's log and in what the user is told, where she is told
// anything.
type refusal struct {
	id      string
	at      time.Time
	account xos.Account
	serial  string
	why     error
	rule    vom.Rule
	// verdicts are what all rules said at the time.
	verdicts []vom.Verdict
	origin   audit.Origin
}

// refusals are the last ones. Older ones that have a line are in the audit log; a
// flood of such as have none drives out neither those nor other origins'.
type refusals struct {
	lately map[string]*refusal // by account and reason
	lines  ring
	others ring
}

func (r *refusals) find(id string) *refusal {
	for _, kept := range [][]*refusal{r.lines.kept, r.others.kept} {
		for _, x := range kept {
			if x.id == id {
				return x
			}
		}
	}
	return nil
}

type ring struct {
	kept []*refusal
	next int // the oldest, once it is full
}

func (r *ring) keep(x *refusal) {
	if len(r.kept) < maxKept {
		r.kept = append(r.kept, x)
		return
	}
	r.kept[r.next] = x
	r.next = (r.next + 1) % maxKept
}

// keepFew is keep, but only so many of one origin.
func (r *ring) keepFew(x *refusal) {
	n, oldest := 0, 0
	for i, old := range r.kept {
		if old.origin != x.origin {
			continue
		}
		if n++; n == 1 || old.at.Before(r.kept[oldest].at) {
			oldest = i
		}
	}
	if n >= maxOfOne {
		r.kept[oldest] = x
		return
	}
	r.keep(x)
}

// refused writes a refusal down under an id, and gives it back with the id.
func (s *Service) refused(ctx context.Context, v visitor, a xos.Account, serial string, why error) error {
	return s.refuse(ctx, v, a, serial, why, false)
}

// refuse is refused; each is a refusal of its own where equal ids would tell
// that two had one reason.
func (s *Service) refuse(ctx context.Context, v visitor, a xos.Account, serial string, why error, each bool) error {
	key, now := a.String()+"\x00"+why.Error(), s.Now()
	s.mu.Lock()
	if last := s.refusals.lately[key]; last != nil && !each && now.Sub(last.at) < again {
		s.mu.Unlock()
		return numbered(why, last.id)
	}
	var random [6]byte
	rand.Read(random[:])
	x := &refusal{id: refusalPrefix + hex.EncodeToString(random[:]), at: now, account: a, serial: serial, why: why, rule: vom.RuleOf(why)}
	if len(s.refusals.lately) >= maxLately {
		clear(s.refusals.lately)
	}
	s.refusals.lately[key] = x
	s.mu.Unlock()
	x.verdicts, x.origin = with(s.rules(ctx, a, nil), x.rule, why), v.origin(a)
	r := audit.Record{Actor: a.String(), Action: "login", Subject: a.String(), Reason: why.Error(), Origin: x.origin, Detail: map[string]string{"login": x.id}}
	if from := v.from(); from != "" {
		r.Detail["from"] = from
	}
	if x.rule != "" {
		r.Detail["rule"] = string(x.rule)
	}
	if serial != "" {
		r.Detail["serial"] = serial
	}
	line, err := s.Audit.Note(ctx, r)
	if err != nil {
		s.Log.Error("the audit log cannot be written", "error", err)
	}
	s.mu.Lock()
	if line {
		s.refusals.lines.keep(x)
	} else {
		s.refusals.others.keepFew(x)
	}
	s.mu.Unlock()
	if line || err != nil {
		s.Log.Info("login refused", "login", x.id, "account", a, "rule", x.rule, "error", why)
	}
	return numbered(why, x.id)
}

// with puts the rule that refused into its place among the others.
func with(all []vom.Verdict, rule vom.Rule, why error) []vom.Verdict {
	if rule == "" {
		rule = "login"
	}
	mine := vom.Verdict{Rule: rule, Refused: true, Text: plain(why)}
	for i, v := range all {
		if v.Rule == rule {
			all[i] = mine
			return all
		}
	}
	// What concerns the certificate comes before what concerns the account.
	return append([]vom.Verdict{mine}, all...)
}

// refusalError is a refusal with its id, which its hint tells.
type refusalError struct {
	id  string
	err *xos.Error
}

func (e refusalError) Error() string { return e.err.Error() }
func (e refusalError) Unwrap() error { return e.err }

func numbered(why error, id string) error {
	var xe *xos.Error
	if !errors.As(why, &xe) {
		xe = &xos.Error{Kind: xos.Internal, Msg: why.Error(), Err: why}
	}
	e := *xe
	if e.Hint != "" {
		e.Hint += "; "
	}
	e.Hint += "xos explain login " + id
	return refusalError{id, &e}
}

// refusalID gives the id of what refused has given.
func refusalID(err error) string {
	var e refusalError
	if errors.As(err, &e) {
		return e.id
	}
	return ""
}

// marked says which rule an error comes from, unless it says that itself.
func marked(rule vom.Rule, err error) error {
	var xe *xos.Error
	if vom.RuleOf(err) != "" || !errors.As(err, &xe) {
		return err
	}
	return vom.By(rule, xe)
}

// plain is an error without its hint.
func plain(err error) string {
	var xe *xos.Error
	if errors.As(err, &xe) {
		e := *xe
		e.Hint = ""
		return e.Error()
	}
	return err.Error()
}

func (s *Service) notServed(vo xos.VOName) error {
	return vom.By(vom.RuleServed, xos.Errorf(xos.Permission, "%s does not serve VO %s", s.cfg.Node, vo))
}

func unknownLogin(id string) error {
	return xos.Errorf(xos.NotFound, "no login %.40q was refused here, or it is too long ago, or one of too many", id).
		WithHint("as root: xos audit list --node --action %s", audit.ActionRefused)
}

// loginOf finds a refused login by its id: among the last ones, or for root in
// the audit log, which is read as far as it must be.
func (s *Service) loginOf(id string, root bool) (*refusal, error) {
	if hexPart, ok := strings.CutPrefix(id, refusalPrefix); !ok || len(hexPart) != 12 || strings.Trim(hexPart, "0123456789abcdef") != "" {
		return nil, unknownLogin(id)
	}
	s.mu.Lock()
	x := s.refusals.find(id)
	s.mu.Unlock()
	switch {
	case x != nil:
		return x, nil
	case !root:
		return nil, unknownLogin(id)
	}
	found, err := s.Audit.Query(audit.Filter{Action: "login", Denied: true, Detail: map[string]string{"login": id}, Last: 1})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the audit log: %w", err)
	}
	if len(found) == 0 {
		return nil, unknownLogin(id)
	}
	e := found[0]
	a, err := xos.ParseAccount(e.Subject)
	if err != nil {
		return nil, err
	}
	x = &refusal{id: id, at: e.Time, account: a, serial: e.Detail["serial"], why: errors.New(e.Reason), rule: vom.Rule(e.Detail["rule"])}
	x.verdicts = with(nil, x.rule, x.why)
	return x, nil
}
