package service

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// makeHome makes the directory that a home is mounted on. Each step is taken
// from the directory before it and follows no link, so that nobody who could
// write in one of them leads it elsewhere. The last one is root's and cannot
// be written to: what a user stores while her volume is missing would be
// hidden under it later.
func (s *Service) makeHome(p *person) error {
	vo := p.account.VO
	group, ok := s.Accounts.Group(string(vo))
	if !ok {
		return xos.Errorf(xos.NotFound, "VO %s is not served here", vo)
	}
	if err := os.MkdirAll(s.cfg.Homes, 0o755); err != nil {
		return xos.Errorf(xos.Internal, "making %s: %w", s.cfg.Homes, err)
	}
	root, err := unix.Open(s.cfg.Homes, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return xos.Errorf(xos.Internal, "opening %s: %w", s.cfg.Homes, err)
	}
	defer unix.Close(root)
	at, err := makeDirectory(root, string(vo), 0o750, int(group.ID))
	if err != nil {
		return xos.Errorf(xos.Internal, "making %s: %w", filepath.Join(s.cfg.Homes, string(vo)), err)
	}
	defer unix.Close(at)
	err = unix.Mkdirat(at, string(p.account.User), 0o555)
	if err != nil && err != unix.EEXIST {
		return xos.Errorf(xos.Internal, "making %s: %w", s.home(p.account), err)
	}
	// Whether a volume is mounted on it or not, it must be a directory. The
	// volume itself is not asked: it may be waiting for its services, and a
	// login shall not.
	var st unix.Statx_t
	if err := unix.Statx(at, string(p.account.User), unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return xos.Errorf(xos.Internal, "%s is no directory", s.home(p.account))
	}
	return nil
}

// givingUp is how long a login waits for the end of a mount that has no credential.
// It would end by itself, too.
const givingUp = 3 * time.Second

// mountAhead begins to mount a home for whose credential the core is about to be
// asked: systemd starts a process in the time in which the core answers, and that
// waits for the credential. mount gives the outcome; abandon ends it instead,
// where there is no credential. One of both must be called. The caller holds
// p.work.
func (s *Service) mountAhead(ctx context.Context, p *person, volume xos.VolumeID) (mount func() error, abandon func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Mounter.Mount(ctx, volume, s.mapping(p)) }()
	mount = func() error {
		defer cancel()
		return <-done
	}
	abandon = func() {
		cancel()
		<-done
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), givingUp)
		defer cancel()
		if err := s.Mounter.Unmount(ctx, volume, s.mapping(p)); err != nil {
			s.Log.Warn("a home without a credential is not given up", "account", p.account, "error", err)
		}
	}
	return mount, abandon
}

// patienceWithHome is how long a mounted home may take to answer.
const patienceWithHome = 2 * time.Second

// answers sees whether a mounted home can be used. One that waits for its
// services holds up a thread at most, for as long as the volume itself waits.
func (s *Service) answers(p *person) error {
	away := xos.Errorf(xos.Unavailable, "your home does not answer: its services are away; what uses it waits for a minute, then fails")
	s.mu.Lock()
	asking := p.asking
	p.asking = true
	s.mu.Unlock()
	if asking {
		return away
	}
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		err := unix.Statfs(s.home(p.account), &st)
		s.mu.Lock()
		p.asking = false
		s.mu.Unlock()
		done <- err
	}()
	timer := time.NewTimer(patienceWithHome)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return away
		}
		return nil
	case <-timer.C:
		return away
	}
}

// makeDirectory makes one that is root's and a group's, and opens it.
func makeDirectory(at int, name string, mode uint32, gid int) (int, error) {
	if err := unix.Mkdirat(at, name, 0o700); err != nil && err != unix.EEXIST {
		return -1, err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchown(fd, 0, gid); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
