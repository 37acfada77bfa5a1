package service_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xtreemos/xos/session/wire"
	"github.com/xtreemos/xos/session/wire/wiretest"
)

// layer is a machine's login layer as other programs find it: the service at its
// socket, and the real modules, in a mount namespace of the test's own.
type layer struct {
	*stage
	room *wiretest.Room
}

// newLayer begins with a stage, which it starts anew after set.
func newLayer(t *testing.T, set func(*stage)) *layer {
	t.Helper()
	l := &layer{newStage(t), wiretest.NewRoom(t, "xos files")} // xos first: nothing may hang on the order
	l.room.Build(t, "../../nss_xos/build.sh", "libnss_xos.so.2")
	l.kill()
	l.run = l.room.Run
	if set != nil {
		set(l.stage)
	}
	l.start()
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: l.room.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.room.Socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- wire.Serve(ctx, socket, current{l.stage}, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// current hands questions to the service of the moment.
type current struct{ *stage }

// get gives what a program prints as root, "" if it fails.
func (l *layer) get(args ...string) string {
	l.Helper()
	out, err := l.room.Command(args...).CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		l.Fatal(err)
	}
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// inside gives what a program prints with a grid user's uid, gid and groups, as
// the system's own initgroups finds them.
func (l *layer) inside(account string, args ...string) string {
	l.Helper()
	uid := l.get("id", "-u", account)
	return l.get(append([]string{"setpriv", "--reuid", uid, "--regid", l.get("id", "-g", account), "--init-groups"}, args...)...)
}

// localIDs are the ids of the build machine's own users and groups.
func localIDs(t *testing.T) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, name := range []string{"passwd", "group"} {
		data, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if f := strings.Split(line, ":"); len(f) > 2 {
				ids[f[2]] = f[0]
			}
		}
	}
	return ids
}
