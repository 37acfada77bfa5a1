package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

// credentialWithin is how long a credential is waited for: xos-node, which has it
// from the core, starts this program before it has the answer. It is less than
// the unit's TimeoutStartSec.
const credentialWithin = 12 * time.Second

// awaitCredential returns when there is a credential in dir, which must exist.
func awaitCredential(ctx context.Context, dir string) error {
	// Mostly it is there by now, and watching costs more than all the rest here.
	if is, err := hasCredential(dir); is || err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return xos.Errorf(xos.Internal, "watching %s: %w", dir, err)
	}
	news := os.NewFile(uintptr(fd), "inotify")
	defer func() { go news.Close() }() // the kernel takes some 15 ms to close one
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		return xos.Errorf(xos.Unavailable, "watching %s: %w", dir, err)
	}
	if err := news.SetReadDeadline(time.Now().Add(credentialWithin)); err != nil {
		return xos.Errorf(xos.Internal, "watching %s: %w", dir, err)
	}
	defer context.AfterFunc(ctx, func() { news.SetReadDeadline(time.Now()) })()
	buf := make([]byte, 4096)
	for {
		// Looked for once it is watched, too: it may have come in between.
		if is, err := hasCredential(dir); is || err != nil {
			return err
		}
		switch _, err := news.Read(buf); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return xos.Errorf(xos.NotFound, "no credential came to %s within %v", dir, credentialWithin)
		case err != nil:
			return xos.Errorf(xos.Internal, "watching %s: %w", dir, err)
		}
	}
}

// hasCredential reports whether one is in dir: its key is there before its
// certificate is.
func hasCredential(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, "cert.pem"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, xos.Errorf(xos.Unavailable, "looking for a credential: %w", err)
	}
	return err == nil, nil
}
