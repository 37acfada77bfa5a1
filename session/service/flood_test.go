package service_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/session/wire"
)

// counter counts what is logged.
type counter struct {
	slog.Handler
	refusals atomic.Int64
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "login refused" {
		c.refusals.Add(1)
	}
	return nil
}

// bounded has the stage's log as a machine has it.
func (s *stage) bounded() (*audit.Bounded, *counter) {
	c := &counter{Handler: slog.DiscardHandler}
	b := audit.Bound(s.audit, func(_ context.Context, r audit.Record) audit.Origin { return r.Origin })
	s.auditor, s.log = b, slog.New(c)
	s.kill()
	s.start()
	return b, c
}

// sum reads how many refusals of logins have a line, and how many the log counts.
func (s *stage) sum() (lines, counted int, origins map[string]int) {
	s.Helper()
	all, err := s.audit.Query(audit.Filter{})
	if err != nil {
		s.Fatal(err)
	}
	origins = map[string]int{}
	for _, e := range all {
		switch {
		case e.Action == "login" && !e.Allowed:
			lines++
		case e.Action == "audit.refused" && e.Detail["unwritten"] != "":
			n, _ := strconv.Atoi(e.Detail["unwritten"])
			counted += n
			origins[e.Actor] += n
		}
	}
	return lines, counted, origins
}

// TestRootFloodOfRefusals: guesses without end write some lines, of the log and of
// the journal, and their exact number; who logs in meanwhile has her line, and of
// other hosts' refusals each is explained.
func TestRootFloodOfRefusals(t *testing.T) {
	s := newStage(t)
	b, said := s.bounded()
	ctx := context.Background()
	cert, _ := s.ca.SSHUser("alice@physics")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	p := s.login()
	refused := func(a xos.Account, host string) string {
		t.Helper()
		_, err := s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: a, Service: "systemd-user", RemoteHost: host}, AuthInfo: "password\n"})
		m := loginID.FindStringSubmatch(fmt.Sprint(err))
		if m == nil {
			t.Fatalf("the refusal %v has no id", err)
		}
		return m[1]
	}
	var first, before string
	const flood = 1500
	for i := range flood {
		id := refused(xos.Account{User: xos.UserID(fmt.Sprint("u", i)), VO: "physics"}, "2001:db8:0:1::"+strconv.FormatInt(int64(i), 16))
		if i == 0 {
			first = id
		}
		if i == 100 {
			before = refused(xos.Account{User: "bob", VO: "physics"}, "192.0.2.9")
		}
	}
	other := refused(xos.Account{User: "carla", VO: "physics"}, "198.51.100.1")
	local := refused(xos.Account{User: "dana", VO: "physics"}, "")
	if _, _, err := s.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{first, before, other, local} {
		if ex, err := s.explain(0, "login", id); err != nil || len(ex.Rules) < 5 {
			t.Errorf("%s is not explained in full: %v, %v", id, ex, err)
		}
	}
	if n := said.refusals.Load(); n != 23 {
		t.Errorf("the journal has %d lines", n)
	}
	if err := b.Tell(ctx); err != nil {
		t.Fatal(err)
	}
	lines, counted, origins := s.sum()
	if lines != 23 || counted != flood-20 || origins["2001:db8:0:1::/64"] != counted {
		t.Errorf("%d lines and %d counted of %d: %v", lines, counted, flood+3, origins)
	}
	allowed, err := s.audit.Query(audit.Filter{Action: "login", Subject: "alice@physics"})
	if err != nil || len(allowed) != 2 {
		t.Errorf("who was let in has %d lines, %v", len(allowed), err)
	}
	s.kill()
	s.start()
	for _, id := range []string{first, before, other, local} { // from the log
		if ex, err := s.explain(0, "login", id); err != nil || len(ex.Lines) != 1 || !strings.Contains(ex.Lines[0], id) {
			t.Errorf("%s after a restart: %v, %v", id, ex, err)
		}
	}
}

// TestRootFloodOfHosts: those without a line are explained too, as far as there is
// room, and no host takes others' room.
func TestRootFloodOfHosts(t *testing.T) {
	s := newStage(t)
	s.bounded()
	ctx := context.Background()
	p := s.login()
	n := 0
	refused := func(host string) string {
		t.Helper()
		n++
		_, err := s.PAMOpen(ctx, p, wire.PAMOpenRequest{PAMRequest: wire.PAMRequest{Account: xos.Account{User: xos.UserID(fmt.Sprint("u", n)), VO: "physics"}, Service: "systemd-user", RemoteHost: host}, AuthInfo: "password\n"})
		return loginID.FindStringSubmatch(fmt.Sprint(err))[1]
	}
	for i := range 250 { // strangers have no line any more
		refused(fmt.Sprintf("10.0.%d.1", i))
	}
	one := refused("192.0.2.9")
	for range 1100 {
		refused("203.0.113.1")
	}
	if ex, err := s.explain(0, "login", one); err != nil || len(ex.Rules) < 5 {
		t.Errorf("it is not explained: %v, %v", ex, err)
	}
}

// TestRootOriginOfSSH: what sshd asks before anything is proven counts for the host
// at the other end of the connection of the process that asks.
func TestRootOriginOfSSH(t *testing.T) {
	s := newStage(t)
	b, _ := s.bounded()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	f, err := served.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// sshd's process, and below it the one that asks
	sshd := exec.Command("sh", "-c", "sleep 300 & echo $!; wait")
	sshd.ExtraFiles = []*os.File{f}
	out, err := sshd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sshd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	k, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:k])))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if asker, err := os.FindProcess(pid); err == nil {
			asker.Kill()
		}
		sshd.Process.Kill()
		sshd.Wait()
	})
	at := time.Duration(0)
	ask := func(pid, n int) {
		for range n {
			at += 3 * time.Second // or it is the same refusal again
			s.setClock(at)
			if _, err := s.Principals(context.Background(), wire.Peer{PID: pid, UID: 999, PIDFD: -1}, wire.PrincipalsRequest{Account: alice, KeyType: "x", Key: "x"}); err == nil {
				t.Fatal("it is no certificate")
			}
		}
	}
	ask(pid, 25)
	// A certificate of the grid's, though it is refused, is its account's.
	mallory, _ := s.ca.SSHUser("mallory@physics")
	at += 3 * time.Second
	s.setClock(at)
	if _, err := s.Principals(context.Background(), wire.Peer{PID: pid, UID: 999, PIDFD: -1}, wire.PrincipalsRequest{Account: xos.Account{User: "mallory", VO: "physics"}, KeyType: mallory.Type(), Key: key(mallory)}); err == nil {
		t.Fatal("mallory is banned")
	}
	ask(0, 22) // whose parent is not known
	if err := b.Tell(context.Background()); err != nil {
		t.Fatal(err)
	}
	if lines, _, origins := s.sum(); lines != 41 || origins["127.0.0.1"] != 5 || origins["ssh"] != 2 {
		t.Errorf("%d lines, %v", lines, origins)
	}
	with, err := s.audit.Query(audit.Filter{Action: "login", Detail: map[string]string{"from": "127.0.0.1"}})
	if err != nil || len(with) != 21 {
		t.Errorf("%d say whence, %v", len(with), err)
	}
}
