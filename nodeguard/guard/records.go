package guard

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// loginSessions is where logind says who is logged in, one file a session: who,
// w and libsystemd read it. A VO's sessions have a directory of the VO's own in
// its place, with what is told there of its own users.
const loginSessions = systemdDir + "/sessions"

// told are the words of such a file that a VO's users are shown; what a later
// logind adds is not, until somebody has looked at it.
var told = []string{"UID", "USER", "ACTIVE", "STATE", "REMOTE", "TYPE", "CLASS", "SCOPE", "SERVICE", "REMOTE_HOST", "TTY", "LEADER", "REALTIME", "MONOTONIC"}

// recordsDir has what belongs to the VOs: VO.utmp and its like, and VO.sessions.
func (g *Guard) recordsDir() string { return filepath.Join(g.run, "logins") }

// ownSessions puts a VO's directory of sessions in place of the empty one, in the
// calling thread's mount namespace. keepRecords fills it.
func (g *Guard) ownSessions(vo xos.VOName) error {
	if !exists(loginSessions) {
		return nil
	}
	own := filepath.Join(g.recordsDir(), string(vo)+".sessions")
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		return err
	}
	if err := makeDirectory(own); err != nil {
		return err
	}
	return bind(own, loginSessions, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
}

// ledgers are the places of the records of logins.
type ledgers struct {
	own       string   // the VOs'
	machine   []string // the machine's files that are added to
	sessions  string   // logind's
	accountOf AccountOf
}

func (g *Guard) ledgers(accountOf AccountOf) ledgers {
	if accountOf == nil {
		accountOf = func(uint32) (xos.Account, bool) { return xos.Account{}, false }
	}
	return ledgers{own: g.recordsDir(), machine: []string{"/run/utmp", "/var/log/wtmp"}, sessions: loginSessions, accountOf: accountOf}
}

// keepRecords keeps what a VO's users see of each other's logins, and tells the
// machine's own records what login programs wrote in a VO's, until ctx ends.
// What was missed is made up for at the next start. Where it fails, nobody is
// kept out for that.
func keepRecords(ctx context.Context, log *slog.Logger, l ledgers, again time.Duration) error {
	warn := func(err error) {
		if err != nil && ctx.Err() == nil {
			log.Warn("the records of logins are not complete", "error", err)
		}
	}
	for {
		warn(l.follow(ctx, warn))
		warn(l.tellAll())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

// follow keeps records up to date until it cannot.
func (l ledgers) follow(ctx context.Context, warn func(error)) error {
	if err := os.MkdirAll(l.own, 0o700); err != nil {
		return err
	}
	watch, err := newWatch(ctx)
	if err != nil {
		return err
	}
	defer watch.Close()
	if err := watch.add(l.own, unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		return err
	}
	if err := watch.add(l.sessions, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE|unix.IN_DELETE); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	warn(l.tellAll())
	for {
		events, err := watch.next()
		if err != nil {
			return err
		}
		// Programs write several records at once, and logind a file several times.
		all, sessions, written := false, map[string]bool{}, map[string]bool{}
		for _, e := range events {
			switch {
			case e.mask&unix.IN_Q_OVERFLOW != 0, strings.HasSuffix(e.name, ".sessions"):
				all = true
			case e.dir == l.sessions:
				sessions[e.name] = true
			case strings.HasSuffix(e.name, ".utmp"), strings.HasSuffix(e.name, ".wtmp"):
				written[e.name] = true
			}
		}
		if all {
			warn(l.tellAll())
			continue
		}
		for name := range sessions {
			warn(l.tellSession(name))
		}
		for name := range written {
			warn(l.tellMachine(name))
		}
	}
}

func (l ledgers) tellAll() error { return errors.Join(l.tellSessions(), l.tellMachine("*")) }

// tellMachine adds VOs' records to the machine's, of all or of one file.
func (l ledgers) tellMachine(name string) error {
	var errs []error
	for _, machine := range l.machine {
		add := addUtmp
		if filepath.Base(machine) == "wtmp" {
			add = addWtmp
		}
		found, err := filepath.Glob(filepath.Join(l.own, "*."+filepath.Base(machine)))
		errs = append(errs, err)
		for _, own := range found {
			if name == "*" || filepath.Base(own) == name {
				errs = append(errs, add(own, machine))
			}
		}
	}
	return errors.Join(errs...)
}

// tellSessions makes all VOs' directories of sessions right.
func (l ledgers) tellSessions() error {
	names := map[string]bool{}
	for _, pattern := range []string{l.sessions + "/*", l.own + "/*.sessions/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range found {
			names[filepath.Base(path)] = true
		}
	}
	var errs []error
	for name := range names {
		errs = append(errs, l.tellSession(name))
	}
	return errors.Join(errs...)
}

// tellSession shows one of logind's sessions to the VO whose user's it is, and to
// no other.
func (l ledgers) tellSession(name string) error {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".ref") { // being written; a pipe
		return nil
	}
	var whose xos.VOName
	var text []byte
	if st, err := os.Lstat(filepath.Join(l.sessions, name)); err == nil && st.Mode().IsRegular() {
		data, err := os.ReadFile(filepath.Join(l.sessions, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		uid, shown := sessionText(data)
		if a, ok := l.accountOf(uid); ok && uid != 0 {
			whose, text = a.VO, shown
		}
	}
	dirs, err := filepath.Glob(l.own + "/*.sessions")
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		at := filepath.Join(dir, name)
		if whose == "" || filepath.Base(dir) != string(whose)+".sessions" {
			errs = append(errs, ignoreMissing(os.Remove(at)))
			continue
		}
		temp := filepath.Join(dir, ".new")
		err := os.WriteFile(temp, text, 0o644)
		if err == nil {
			err = os.Rename(temp, at)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sessionText gives whose a session is, 0 where that is not to be read, and what
// is shown of it. logind writes the uid first; what the user has a hand in comes
// after it, and is quoted where it is not plain: it may only say of itself what
// was not said.
func sessionText(data []byte) (uid uint32, shown []byte) {
	said := map[string]bool{}
	for line := range bytes.Lines(data) {
		word, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		if !ok || strings.HasPrefix(word, "#") {
			continue
		}
		if uid == 0 {
			n, err := strconv.ParseUint(value, 10, 32)
			if word != "UID" || err != nil || n == 0 {
				return 0, nil
			}
			uid = uint32(n)
		}
		if strings.ContainsAny(value, "\"'\\") {
			continue
		}
		if slices.Contains(told, word) && !said[word] {
			said[word] = true
			shown = append(shown, line...)
		}
	}
	return uid, shown
}
