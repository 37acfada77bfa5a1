// Command mount.xosfs mounts one volume of XtreemFS and serves it until it is
// told to end. xos-node starts it, in a unit of its own (xos-mount@), with a
// configuration that says what to mount where, and for whom.
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

	"github.com/xtreemos/xos"
)

// version is set by the build.
var version = "dev"

func main() {
	path := flag.String("config", "/run/xos/mounts/volume.toml", "configuration file")
	check := flag.Bool("check-config", false, "check the configuration and end")
	show := flag.Bool("version", false, "print the version and end")
	flag.Parse()
	if *show {
		fmt.Println(version)
		return
	}
	cfg, err := readConfig(*path)
	if err == nil && !*check {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = awaitCredential(ctx, cfg.Credentials)
		switch {
		case ctx.Err() != nil:
			err = nil // told to end, with nothing done
		case err == nil:
			// What a predecessor of the one who brought it wrote may have changed.
			if cfg, err = readConfig(*path); err == nil {
				err = run(ctx, cfg, log)
			}
		}
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount.xosfs:", err)
		var xe *xos.Error
		if errors.As(err, &xe) {
			os.Exit(xe.Kind.ExitStatus())
		}
		os.Exit(1)
	}
}
