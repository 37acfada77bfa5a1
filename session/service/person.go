package service

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/process"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
)

// person is a grid account that has, or lately had, a session or a job here.
type person struct {
	work sync.Mutex

	// The rest is guarded by Service.mu.

	account xos.Account
	uid     uint32
	// who is she by the newest credential seen here.
	who vom.Identity
	// shown is the OpenSSH certificate of her newest login, wire format, until
	// when it ends.
	shown  []byte
	until  time.Time
	groups []session.Group
	// uses counts sessions and jobs, viaSSH the open sessions that sshd asked for;
	// idle ends the wait for the next one.
	uses, viaSSH int
	idle         *time.Timer
	held         *session.Credential
	delegation
	// mounted is the volume at her home, as far as this process knows.
	mounted xos.VolumeID
	// fate is what what runs of hers here is left since her access ended; ""
	// while she has access. judging is set while a sentence is carried out, and
	// appeal when there were news meanwhile.
	fate            vom.Fate
	judging, appeal bool
	// denied is set where the last attempt to get her a credential failed.
	denied bool
	// asking is set while it is seen whether her home answers.
	asking bool
	// vouched is set while sshd is told in advance that she may come.
	vouched bool
}

// login is an open session, its login process, and what else it lasts as long
// as.
type login struct {
	session.Session
	Process process.ID
	Service string
	// Scope has the processes of the login, where logind knows of it. It makes it
	// after the session was opened. Service.mu guards it.
	Scope process.Scope
}

// count counts an open session of a person, or one less. Service.mu is held.
func (p *person) count(l *login, n int) {
	if l.Service == sshd {
		p.viaSSH += n
	}
}

// savedPerson is a person's record.
type savedPerson struct {
	Account xos.Account
	UID     uint32
	Who     vom.Identity
	Shown   []byte
	Until   time.Time
	Groups  []session.Group
	Mounted xos.VolumeID
	Terms   terms
	Fate    vom.Fate `json:",omitempty"`
}

func (s *Service) personPath(uid uint32) string {
	return filepath.Join(s.cfg.Run, "accounts", strconv.FormatUint(uint64(uid), 10)+".json")
}

func (s *Service) sessionPath(id xos.SessionID) string {
	return filepath.Join(s.cfg.Run, "sessions", string(id)+".json")
}

// save keeps a person's record. The caller holds p.work.
func (s *Service) save(p *person) error {
	s.mu.Lock()
	r := savedPerson{p.account, p.uid, p.who, p.shown, p.until, p.groups, p.mounted, p.terms, p.fate}
	s.mu.Unlock()
	return writeRecord(s.personPath(r.UID), r)
}

func writeRecord(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return xos.Errorf(xos.Internal, "encoding %s: %w", path, err)
	}
	if err := machine.ReplaceFile(path, data, 0o600); err != nil {
		return xos.Errorf(xos.Internal, "writing %s: %w", path, err)
	}
	return nil
}

// adopt takes over the records of a predecessor. One that cannot be read is
// left aside: it was written whole, so it is not this program's.
func (s *Service) adopt() error {
	err := eachRecord(filepath.Join(s.cfg.Run, "accounts"), func(path string, data []byte) error {
		var r savedPerson
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		if e, ok := s.Accounts.User(r.Account); !ok || e.ID != r.UID {
			return os.Remove(path) // of another map
		}
		p := &person{account: r.Account, uid: r.UID, who: r.Who, shown: r.Shown, until: r.Until, groups: r.Groups, mounted: r.Mounted, fate: r.Fate}
		p.terms = r.Terms
		if p.held = s.loadCredential(r.UID, r.Account); p.held != nil {
			p.held.Until = r.Terms.Until
			p.schedule(*p.held, s.Now())
		}
		p.onward = s.loadOnward(r.UID, r.Account)
		s.people[r.Account] = p
		return nil
	})
	if err != nil {
		return err
	}
	err = eachRecord(filepath.Join(s.cfg.Run, "sessions"), func(path string, data []byte) error {
		var l login
		if err := json.Unmarshal(data, &l); err != nil {
			return err
		}
		p := s.people[l.Identity.Account]
		if p == nil || s.sessionPath(l.ID) != path {
			return os.Remove(path)
		}
		s.sessions[l.ID] = &l
		p.uses++
		p.count(&l, 1)
		if s.Stays != nil {
			s.Stays.Adopted(l.Session)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// From here on others are at work, too.
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sessions {
		s.work.Go(func() { s.watch(l) })
		s.serveAgent(s.people[l.Identity.Account])
	}
	for _, p := range s.people {
		s.wake(p)
		if p.uses == 0 {
			s.linger(p)
		}
	}
	return nil
}

func eachRecord(dir string, f func(path string, data []byte) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return xos.Errorf(xos.Internal, "reading %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Name()[0] == '.' {
			os.Remove(path) // a write that was cut short
			continue
		}
		data, err := os.ReadFile(path)
		if err == nil {
			err = f(path, data)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return xos.Errorf(xos.Internal, "taking over %s: %w", path, err).WithHint("remove it and restart xos-node")
		}
	}
	return nil
}

// mapping is a person's place in the local system.
func (s *Service) mapping(p *person) session.Mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	return session.Mapping{Account: p.account, UID: p.uid, Home: s.home(p.account), Shell: s.cfg.Shell, Groups: slices.Clone(p.groups)}
}

func (s *Service) home(a xos.Account) string {
	return s.cfg.Homes + "/" + string(a.VO) + "/" + string(a.User)
}

// find gives the person of an account, or nil.
func (s *Service) find(a xos.Account) *person {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.people[a]
}
