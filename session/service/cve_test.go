package service_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// What went wrong in other login layers does not go wrong here. Each test has the
// name of what it is about; docs/testing.md has the list.

// TestRootCVE_2024_9312: authd took a uid from a hash of the name, and two users
// who agreed in it were one. Here eight ids are all there are: each account has
// one of its own, whoever comes at the same time, and the one too many none.
func TestRootCVE_2024_9312(t *testing.T) {
	const groups, users = 3, 5 // physics, physics:higgs, chemistry
	l := newLayer(t, func(s *stage) {
		s.first, s.last = session.FirstID, session.FirstID+groups+users-1
		os.RemoveAll(filepath.Join(s.dir, "state")) // the ids that were given before
		os.MkdirAll(filepath.Join(s.dir, "state"), 0o700)
	})
	var wg sync.WaitGroup
	errs := make([]error, users+1)
	name := func(i int) string { return fmt.Sprintf("u%d@physics", i) }
	for i := range users {
		c, _ := l.ca.SSHUser(name(i))
		wg.Go(func() { _, _, errs[i] = l.open(must(xos.ParseAccount(name(i))), c) })
	}
	wg.Wait()
	seen := map[string]string{}
	for i := range users {
		if errs[i] != nil {
			t.Fatalf("%s: %v", name(i), errs[i])
		}
		uid := l.get("id", "-u", name(i))
		if other := seen[uid]; other != "" || uid == "" {
			t.Errorf("%s and %s have uid %q", name(i), other, uid)
		}
		seen[uid] = name(i)
		if back := l.get("id", "-un", uid); back != name(i) {
			t.Errorf("uid %s of %s is %q", uid, name(i), back)
		}
		if groups := l.get("getent", "group", uid); !strings.HasPrefix(groups, name(i)+":") {
			t.Errorf("gid %s of %s is %q", uid, name(i), groups)
		}
	}
	c, _ := l.ca.SSHUser(name(users))
	if _, _, err := l.open(must(xos.ParseAccount(name(users))), c); !xos.Is(err, xos.TooLarge) {
		t.Errorf("one more than there are ids: %v", err)
	}
	if out := l.get("getent", "passwd", name(users)); out != "" {
		t.Errorf("she is %q", out)
	}
}

// TestRootCVE_2025_5689: authd gave a user at her first login by ssh a record with
// root's group, before anybody had proved anything. What is answered before a
// login is as well in range as what is answered after it; for every name that
// comes from the network.
func TestRootCVE_2025_5689(t *testing.T) {
	l := newLayer(t, nil)
	check := func(when, account string) {
		t.Helper()
		f := strings.Split(l.get("getent", "passwd", account), ":")
		if len(f) != 7 || f[2] != f[3] {
			t.Fatalf("%s: %s is %q", when, account, f)
		}
		ids := append(strings.Fields(l.get("id", "-G", account)), f[2], f[3])
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err != nil || uint32(n) < session.FirstID || uint32(n) > session.LastID {
				t.Errorf("%s: %s has id %s of %v", when, account, id, ids)
			}
		}
	}
	check("before her first login", "alice@physics")
	check("before, though there is no such user", "nobodys@physics")
	for _, name := range []string{"root", "0", "root@physics", "alice@nowhere", "alice@physics:0", "0@physics", "@physics"} {
		if out := l.get("getent", "passwd", name); out != "" && name != "root" && name != "0" {
			t.Errorf("%q is %q", name, out)
		}
	}
	cert, _ := l.ca.SSHUser("alice@physics", credtest.Groups("higgs"))
	if _, _, err := l.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	check("in her session", "alice@physics")
	if ids := l.inside("alice@physics", "id", "-G"); len(strings.Fields(ids)) != 3 || slices.Contains(strings.Fields(ids), "0") {
		t.Errorf("her processes have the groups %q", ids)
	}
}

// TestRootCVE_2026_6970: a login gave a user another primary group than the one
// before. Hers, and her VO's groups', are the same at every moment: before, in and
// after a session, in others' sessions, after a restart and when she comes back.
func TestRootCVE_2026_6970(t *testing.T) {
	l := newLayer(t, nil)
	ask := func() string {
		return l.get("getent", "passwd", "alice@physics") + "\n" + l.get("getent", "group", "physics") + "\n" + l.get("id", "-G", "alice@physics")
	}
	cert, _ := l.ca.SSHUser("alice@physics", credtest.Groups("higgs"))
	login := func(account string, c *ssh.Certificate) wire.Peer {
		t.Helper()
		p, _, err := l.open(must(xos.ParseAccount(account)), c)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := strings.Split(l.get("getent", "passwd", "alice@physics"), ":")
	p := login("alice@physics", cert)
	first := ask()
	if now := strings.Split(l.get("getent", "passwd", "alice@physics"), ":"); len(before) != 7 || !slices.Equal(before, now) {
		t.Errorf("she was %v and is %v", before, now)
	}
	same := func(when string) {
		t.Helper()
		got := strings.Split(ask(), "\n")
		want := strings.Split(first, "\n")
		want[1], got[1] = strings.Join(strings.Split(want[1], ":")[:3], ":"), strings.Join(strings.Split(got[1], ":")[:3], ":") // others come and go
		if !slices.Equal(got, want) {
			t.Errorf("%s she is %q, was %q", when, got, want)
		}
	}
	bob, _ := l.ca.SSHUser("bob@physics", credtest.Groups("higgs"))
	login("bob@physics", bob)
	same("beside another")
	login("alice@physics", cert)
	same("in two sessions")
	kill(p)
	l.kill()
	l.start()
	same("after a restart")
	l.ca.Revoke(vom.Revocation{User: "alice", VO: "physics", Before: time.Now(), Reason: "left"})
	l.Changed(vom.Bundle{})
	l.eventually("her sessions end", func() bool { return l.sessions() == 1 })
	again, _ := l.ca.SSHUser("alice@physics", credtest.Groups("higgs"), credtest.Issued(time.Now().Add(time.Second).Truncate(time.Second), time.Hour))
	l.eventually("she comes back", func() bool { _, _, err := l.open(alice, again); return err == nil })
	same("when she has come back")
}

// TestRootCVE_2025_49012: in himmelblau a group of the directory could be taken for
// a local one of its name, such as sudo. A VO has no such name, its groups carry
// the VO's, and none has a local group's id, though xos is asked first. A local
// group that is made later keeps what it is.
func TestRootCVE_2025_49012(t *testing.T) {
	danger := []xos.GroupName{"adm", "docker", "lxd", "root", "sudo", "wheel"}
	l := newLayer(t, func(s *stage) {
		s.ca.Change(func(b *vom.Bundle) {
			for i := range b.VOs {
				b.VOs[i].Groups = danger
			}
			for _, name := range []xos.VOName{"sudo", "wheel", "admin", "lxd", "docker"} { // a core that errs
				b.VOs = append(b.VOs, vom.VO{Name: name, Groups: danger})
			}
		})
	})
	for _, name := range append(slices.Clone(danger), "admin") {
		a := xos.Account{User: "alice", VO: xos.VOName(name)}
		if _, err := l.GetPwNam(context.Background(), root, a); !xos.Is(err, xos.NotFound) {
			t.Errorf("%s: %v", a, err)
		}
		if got, want := l.get("getent", "group", string(name)), l.get("getent", "-s", "files", "group", string(name)); got != want {
			t.Errorf("group %s is %q, was %q", name, got, want)
		}
	}
	cert, _ := l.ca.SSHUser("alice@physics", credtest.Groups(danger...))
	if _, _, err := l.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	local := localIDs(t)
	for _, id := range strings.Fields(l.inside("alice@physics", "id", "-G")) {
		if name, ok := local[id]; ok {
			t.Errorf("she is in the local group %s", name)
		}
	}
	for _, name := range strings.Fields(l.inside("alice@physics", "id", "-Gn")) {
		if name != "alice@physics" && name != "physics" && !strings.HasPrefix(name, "physics:") {
			t.Errorf("she is in %q", name)
		}
	}
	// The machine gets a group of the VO's name: it is the machine's, and the VO
	// is not served any more when it is asked for anew.
	if err := os.WriteFile(filepath.Join(l.dir, "etc/group"), []byte("root:x:0:\nphysics:x:500:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bob, _ := l.ca.SSHUser("bob@physics")
	if _, _, err := l.open(xos.Account{User: "bob", VO: "physics"}, bob); err != nil {
		t.Logf("a new user of a VO with a local group's name: %v", err)
	}
}

// TestRootCVE_2013_0219: sssd followed links while it made a home, and changed
// what they led to. Here somebody exchanges the VO's directory for a link to
// another, and the home's place for a hard link to a file, while she logs in:
// neither the directory nor the file is touched.
func TestRootCVE_2013_0219(t *testing.T) {
	s := newStage(t)
	cert, _ := s.ca.SSHUser("alice@physics")
	homes := filepath.Join(s.dir, "home")
	victim, secret := filepath.Join(s.dir, "victim"), filepath.Join(s.dir, "secret")
	for _, err := range []error{os.MkdirAll(filepath.Join(homes, "physics"), 0o750), os.Mkdir(victim, 0o700), os.WriteFile(secret, []byte("x"), 0o600),
		os.Symlink(victim, filepath.Join(homes, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stat := func(path string) string {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%o %d:%d %v", st.Mode, st.Uid, st.Gid, st.Ctim)
	}
	before := stat(victim)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default: // in one step, so that there is always one of both
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(homes, "physics"), unix.AT_FDCWD, filepath.Join(homes, "link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	led := 0
	for range 100 {
		_, reply, err := s.open(alice, cert)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Message != "" {
			led++
		}
	}
	close(stop)
	<-done
	if now := stat(victim); now != before {
		t.Errorf("what the link led to was %s and is %s", before, now)
	}
	if names := must(os.ReadDir(victim)); len(names) != 0 {
		t.Errorf("made there: %v", names)
	}
	t.Logf("%d of 100 logins met the link", led)

	// A file's second name in the place of a home.
	if info, err := os.Lstat(filepath.Join(homes, "physics")); err != nil || !info.IsDir() {
		os.Rename(filepath.Join(homes, "physics"), filepath.Join(homes, "x"))
		os.Rename(filepath.Join(homes, "link"), filepath.Join(homes, "physics"))
	}
	if err := os.Link(secret, filepath.Join(homes, "physics/bob")); err != nil {
		t.Fatal(err)
	}
	before = stat(secret)
	bob, _ := s.ca.SSHUser("bob@physics")
	_, reply, err := s.open(xos.Account{User: "bob", VO: "physics"}, bob)
	if err != nil || !strings.Contains(reply.Message, "is no directory") || s.mounts.has("home-physics-bob") {
		t.Errorf("a file for a home: %q, %v", reply.Message, err)
	}
	if now := stat(secret); now != before {
		t.Errorf("the file was %s and is %s", before, now)
	}
}

// TestRootCVE_2025_11561: where sssd could not map an identity, somebody named root
// became root. Here an identity is mapped by its certificate's own name or not at
// all: nobody's is root's, and none opens a session as a local user.
func TestRootCVE_2025_11561(t *testing.T) {
	l := newLayer(t, nil)
	l.room.Build(t, "../../principals_xos/build.sh", "xos-principals")
	l.room.Build(t, "../../pam_xos/build.sh", "pam_xos.so")
	l.room.PAM(t, "sshd", "session [success=done ignore=ignore default=die] /run/lib/pam_xos.so\nsession required pam_deny.so\n")
	cert, _ := l.ca.SSHUser("alice@physics")
	evil, _ := l.ca.SSHUser("alice@physics", credtest.Erring(func(c *ssh.Certificate) { // an authority that errs
		c.KeyId, c.ValidPrincipals, c.Extensions["user-id@xtreemos"] = "root@physics", []string{"root@physics"}, "root"
	}))
	plain, _ := l.ca.SSHUser("alice@physics", credtest.Erring(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }))
	for _, c := range []struct {
		name string
		cert *ssh.Certificate
	}{{"root", cert}, {"root", evil}, {"root@physics", evil}, {"root@physics", cert}, {"root", plain}, {"alice@physics", plain}, {"daemon", cert}, {"alice@physics", evil}, {"bob@physics", cert}} {
		cmd := l.room.Command("/run/lib/xos-principals", c.name, c.cert.Type(), key(c.cert))
		if out, err := cmd.Output(); err == nil || len(out) != 0 {
			t.Errorf("%s, by the certificate of %s: %q, %v", c.name, c.cert.KeyId, out, err)
		}
		if strings.Contains(c.name, "@") {
			continue
		}
		// pam_xos leaves a local user to the other modules, whatever the
		// certificate says: here they deny.
		out, err := l.room.Command("pamtester", "-E", "SSH_AUTH_INFO_0="+strings.TrimSpace(authInfo(c.cert)), "sshd", c.name, "open_session").CombinedOutput()
		if err == nil || l.sessions() != 0 {
			t.Errorf("%s has a session: %s", c.name, out)
		}
	}
	if out := l.get("getent", "passwd", "root@physics"); out != "" {
		t.Errorf("root@physics is %q", out)
	}
	if uid := l.get("id", "-u", "root"); uid != "0" {
		t.Errorf("root is %q", uid)
	}
	if out, err := l.room.Command("/run/lib/xos-principals", "alice@physics", cert.Type(), key(cert)).Output(); err != nil || string(out) != "alice@physics\n" {
		t.Errorf("she herself: %q, %v", out, err)
	}
}

// TestRootOSLoginGroups: guest-oslogin put who logged in into adm, docker and
// lxd, which are root by another name. A session's groups are its own and its
// VO's, whatever her roles and groups are called.
func TestRootOSLoginGroups(t *testing.T) {
	l := newLayer(t, func(s *stage) {
		s.ca.Change(func(b *vom.Bundle) { b.VOs[0].Groups = []xos.GroupName{"adm", "docker", "lxd"} })
	})
	cert, _ := l.ca.SSHUser("alice@physics", credtest.Groups("adm", "docker", "lxd"), credtest.Roles("admin", "root", "sudo"))
	_, reply, err := l.open(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range reply.Env {
		if !strings.HasPrefix(e, "XOS_") {
			t.Errorf("her environment gets %s", e)
		}
	}
	names := strings.Fields(l.inside("alice@physics", "id", "-Gn"))
	slices.Sort(names)
	if want := []string{"alice@physics", "physics", "physics:adm", "physics:docker", "physics:lxd"}; !slices.Equal(names, want) {
		t.Errorf("she is in %v, want %v", names, want)
	}
	ids := strings.Fields(l.inside("alice@physics", "id", "-G"))
	for _, id := range ids {
		if n, _ := strconv.ParseUint(id, 10, 32); uint32(n) < session.FirstID {
			t.Errorf("she has the local group %s", id)
		}
	}
}

// TestRootSecretsInLogs: several login layers wrote passwords and tokens into
// their debug logs. Here all that is logged at its most talkative, by the service
// and the module, and all that is kept, has neither a password, right or wrong,
// nor a private key.
func TestRootSecretsInLogs(t *testing.T) {
	var logged lines
	l := newLayer(t, func(s *stage) {
		s.log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	l.room.Build(t, "../../pam_xos/build.sh", "pam_xos.so")
	l.room.PAM(t, "login", "auth required /run/lib/pam_xos.so debug\naccount required /run/lib/pam_xos.so debug\nsession required /run/lib/pam_xos.so debug\n")
	system := l.room.Log(t)
	cert, private := l.ca.SSHUser("alice@physics")
	if _, _, err := l.open(alice, cert); err != nil {
		t.Fatal(err)
	}
	const right, wrong = "secret of alice", "a-wrong-guess-77"
	for _, password := range []string{right, wrong, strings.Repeat(wrong, 100)} {
		cmd := l.room.Command("pamtester", "login", "alice@physics", "authenticate", "acct_mgmt", "open_session")
		cmd.Stdin = strings.NewReader(password + "\n")
		out, _ := cmd.CombinedOutput()
		if strings.Contains(string(out), password) || password == right && !strings.Contains(string(out), "successfully opened a session") {
			t.Errorf("the login said %q", out)
		}
	}
	l.types(l.login(), alice, "sshd", "192.0.2.1", wrong)
	held := must(l.Credential(context.Background(), alice)).Certificate.PrivateKey
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(held))
	l.kill()
	texts := map[string]string{"the service": logged.String(), "the module": strings.Join(system.Entries(t), "\n"),
		"the audit log": string(must(os.ReadFile(filepath.Join(l.dir, "audit.log"))))}
	if !strings.Contains(texts["the service"], "level=INFO") || !strings.Contains(texts["the module"], "refused") {
		t.Fatalf("nothing was logged: %v", texts)
	}
	for who, text := range texts {
		for what, secret := range map[string]string{"the password": right, "a wrong password": wrong, "the user's key": base64.StdEncoding.EncodeToString(private.Seed()),
			"the session's key": base64.StdEncoding.EncodeToString(pkcs8[len(pkcs8)-32:]), "a key": "PRIVATE KEY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", who, what)
			}
		}
	}
	// What is kept of the key is for root alone.
	filepath.WalkDir(l.run, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data := must(os.ReadFile(path))
		info := must(d.Info())
		if bytes.Contains(data, []byte(right)) || bytes.Contains(data, []byte(wrong)) {
			t.Errorf("%s has a password", path)
		}
		if bytes.Contains(data, []byte("PRIVATE KEY")) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
}

// lines is a log that many write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
