package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/session/residue"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
)

// patience bounds how long a login waits for its credential and home; the
// module waits for 20 s in all.
const patience = 12 * time.Second

// userManager is the PAM service of systemd's per-user manager: no login of
// its own, but one of somebody who has logged in.
const userManager = "systemd-user"

// sshd is OpenSSH's PAM service.
const sshd = "sshd"

// PAMAccount implements wire.Handler.
func (s *Service) PAMAccount(ctx context.Context, p wire.Peer, r wire.PAMRequest) (string, error) {
	v := visitor{peer: p, host: r.RemoteHost}
	if !s.serves(r.Account.VO) {
		return "", s.refused(ctx, v, r.Account, "", s.notServed(r.Account.VO))
	}
	if !s.Accounts.Known(r.Account) {
		return "", xos.Errorf(xos.Unavailable, "no uid is reserved for %s", r.Account).WithHint("log in again")
	}
	if proc, err := processOf(p); err == nil {
		if other, ok := s.another(proc, r.Account); ok {
			return "", s.refused(ctx, v, r.Account, "", impostor(other, r.Account))
		}
	}
	// Where sshd did not ask before, this is where it can still tell her no.
	if who, yes := s.vouched(r.Account); yes && r.Service == sshd {
		if err := s.admits(ctx, who); err != nil {
			v.known = true // sshd has authenticated her
			return "", s.refused(ctx, v, r.Account, "", err)
		}
	}
	return "", nil
}

// PAMOpen implements wire.Handler. The login process's certificate is verified
// again: now its possession is proven. A refusal ends the process, since sshd and
// sudo would go on: after the user was told why, except by sshd, which tells her
// nothing any more.
func (s *Service) PAMOpen(ctx context.Context, p wire.Peer, r wire.PAMOpenRequest) (reply wire.PAMOpenReply, err error) {
	defer func() {
		if err == nil || r.Service == userManager {
			return
		}
		end := func() {
			if err := kill(p); err != nil {
				s.Log.Error("a refused login process was not ended", "pid", p.PID, "account", r.Account, "error", err)
			}
		}
		if r.Service == sshd {
			end()
			return
		}
		reply.Refused = end
	}()
	proc, err := processOf(p)
	if err != nil {
		return reply, err
	}
	a, v := r.Account, visitor{peer: p, host: r.RemoteHost}
	if !s.serves(a.VO) {
		return reply, s.refused(ctx, v, a, "", s.notServed(a.VO))
	}
	who, shown, how, err := s.evidence(r, proc)
	if err != nil {
		return reply, s.refused(ctx, v, a, who.Serial, err)
	}
	v.known = true
	d := s.Policy.Decide(ctx, who, vom.ActionLogin, s.cfg.Node)
	if !d.Allow {
		return reply, s.refused(ctx, v, a, who.Serial, forbidden(a, d))
	}
	if s.frozen(a) {
		// Its processes would be made in what is frozen, and hang.
		s.Changed(vom.Bundle{})
		return reply, s.refused(ctx, v, a, who.Serial, xos.Errorf(xos.Unavailable, "what %s runs on %s is still frozen", a, s.cfg.Node).WithHint("log in again in a few seconds"))
	}
	uid, err := s.Accounts.Commit(ctx, a, proc)
	if err != nil {
		return reply, s.refused(ctx, v, a, who.Serial, marked(vom.RuleUID, err))
	}
	s.provide(ctx, a)
	id := newSessionID()
	// What is not on record is not granted.
	if err := s.Audit.Append(ctx, audit.Record{Actor: a.String(), Action: "login", Subject: a.String(), Allowed: true, Reason: d.Reason, Policy: d.Policy,
		Detail: map[string]string{"serial": who.Serial, "from": r.RemoteHost, "session": string(id), "service": r.Service, "by": how}}); err != nil {
		s.Log.Error("the audit log cannot be written", "error", err)
		return reply, xos.Errorf(xos.Unavailable, "%s cannot record its decisions", s.cfg.Node)
	}
	person, err := s.settle(ctx, who, uid, shown)
	if err != nil { // for lack of a label, say
		return reply, s.refused(ctx, v, a, who.Serial, marked(vom.RuleUID, err))
	}
	l := &login{Process: proc, Service: r.Service, Session: session.Session{ID: id, Identity: who, Mapping: s.mapping(person),
		LoginPID: p.PID, From: r.RemoteHost, TTY: r.TTY, Opened: s.Now()}}
	// It is on record as a login, and so it counts as one, whatever comes of it.
	counted := s.began(l)
	opened := false
	defer func() {
		if !opened {
			counted()
			s.ended(l)
			s.done(person)
		}
	}()
	tryCtx, cancel := context.WithTimeout(ctx, patience)
	missing := s.furnish(tryCtx, person)
	cancel()
	if missing != nil {
		s.Log.Warn("a login lacks something", "account", a, "error", missing)
		reply.Message = "XtreemOS: " + missing.Error() + "\n"
	}
	if reply.Namespace, err = s.namespace(ctx, a.VO); err != nil {
		return reply, err
	}
	counted()
	if err := s.begin(person, l); err != nil {
		return reply, err
	}
	opened = true
	if err := residue.ShortenLastlog(); err != nil {
		s.Log.Warn("lastlog has a grid user", "error", err)
	}
	socket := ""
	s.mu.Lock()
	if s.sessions[id] == l { // else it is over already, and nobody would end the agent
		socket = s.serveAgent(person)
	}
	s.mu.Unlock()
	// A revocation may have come while this was under way, too early for the
	// sweep to see the session.
	if err := s.standing(who); err != nil {
		s.end(l, "refused")
		return reply, s.refused(ctx, v, a, who.Serial, err)
	}
	s.vouch(person)
	s.Log.Info("session opened", "session", id, "account", a, "uid", uid, "pid", p.PID, "from", r.RemoteHost)
	reply.Session = id
	reply.Env = []string{"XOS_SESSION=" + string(id), "XOS_VO=" + string(a.VO), "XOS_NODE=" + string(s.cfg.Node)}
	if socket != "" {
		// Not SSH_AUTH_SOCK: it would displace an agent that she forwards, which
		// sshd has set before it asks PAM. The ssh_config takes it where there is
		// none.
		reply.Env = append(reply.Env, "XOS_SSH_AGENT="+socket)
	}
	if s.wantsConsent(person) {
		reply.Env = append(reply.Env, "XOS_CONSENT=wanted")
	}
	return reply, nil
}

// namespace gives the VO's namespace; none on a machine that keeps VOs apart by
// uids only and says so.
func (s *Service) namespace(ctx context.Context, vo xos.VOName) (*os.File, error) {
	fd, err := s.Guard.SessionNamespace(ctx, vo)
	if err == nil {
		return os.NewFile(uintptr(fd), "mnt:"+string(vo)), nil
	}
	if level, _ := s.Guard.Level(); level == nodeguard.LevelNone && xos.Is(err, xos.NotSupported) {
		return nil, nil
	}
	return nil, err
}

// processOf names the peer's process, which must still be the one that asked.
func processOf(p wire.Peer) (process.ID, error) {
	if p.PIDFD < 0 {
		return process.ID{}, xos.Errorf(xos.Unavailable, "the login process is gone")
	}
	id, err := process.Of(p.PID)
	if err != nil {
		return process.ID{}, err
	}
	if err := unix.PidfdSendSignal(p.PIDFD, 0, nil, 0); err != nil {
		return process.ID{}, xos.Errorf(xos.Unavailable, "the login process is gone")
	}
	return id, nil
}

func kill(p wire.Peer) error {
	if p.PIDFD < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

func newSessionID() xos.SessionID {
	var b [8]byte
	rand.Read(b[:])
	return xos.SessionID("s-" + hex.EncodeToString(b[:]))
}
