package guard

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
)

const (
	// roomWait is how long memory for an entry is waited for: the kernel has some at
	// hand for maps that are not made in full at once, and gets more in the
	// background, within a millisecond mostly.
	roomWait  = 200 * time.Millisecond
	roomEvery = time.Millisecond
)

// enter puts an entry into one of the kernel's maps, by put.
func enter(put func() error) error {
	for until := time.Now().Add(roomWait); ; time.Sleep(roomEvery) {
		if err := put(); !errors.Is(err, unix.ENOMEM) || time.Now().After(until) {
			return err
		}
	}
}

// unroomy says why there is no entry of what: where the map is full, whoever is
// refused can do nothing, and root only one thing.
func unroomy(what string, err error) error {
	if errors.Is(err, unix.E2BIG) {
		return xos.Errorf(xos.Unavailable, "there is no room for %s: %d are all that this machine tells apart, those in quarantine among them", what, maxFigures).
			WithHint("root makes room when nothing is left of former users: xos uid sweep")
	}
	return xos.Errorf(xos.Unavailable, "making %s: %w", what, err)
}
