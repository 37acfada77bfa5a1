// Command xos-userdb tells systemd's programs of the grid users and groups that
// this machine knows: what getpwnam says of them, as JSON records on the varlink
// interface io.systemd.UserDatabase, which userdbctl and systemd-userdbd ask. It
// reads the snapshots that xos-node writes, and needs nothing of a running
// xos-node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/session/userdb"
	"github.com/xtreemos/xos/session/wire"
)

// version is set by the build.
var version = "dev"

func main() {
	show := flag.Bool("version", false, "print the version and end")
	flag.Parse()
	if *show {
		fmt.Println(version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "xos-userdb:", err)
		var xe *xos.Error
		if errors.As(err, &xe) {
			os.Exit(xe.Kind.ExitStatus())
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	s, err := userdb.New(userdb.Config{Snapshots: wire.SnapshotDir, Socket: userdb.SocketPath, Version: version}, log)
	if err != nil {
		return err
	}
	defer s.Close()
	daemon.SdNotify(false, daemon.SdNotifyReady)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(ctx) })
	group.Go(func() error { return watchdog(ctx, log) })
	return group.Wait()
}

// watchdog tells the service manager that the socket is answered, as long as it
// is: who looks a name up waits for the answer.
func watchdog(ctx context.Context, log *slog.Logger) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil
	}
	tick := time.NewTicker(every / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, every/4)
		err := userdb.Alive(asking, userdb.SocketPath)
		cancel()
		if err != nil {
			log.Warn("the socket is not answered", "error", err)
			continue
		}
		daemon.SdNotify(false, daemon.SdNotifyWatchdog)
	}
}
