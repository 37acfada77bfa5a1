// Command xos-node makes a machine one of the grid's: it serves its logins,
// keeps its VOs apart, and runs and manages jobs. It runs as root and may be
// restarted at any time: no login, mount or job is disturbed by that.
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
	path := flag.String("config", "/etc/xos/node.toml", "configuration file")
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
		err = run(ctx, cfg, log)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "xos-node:", err)
		var xe *xos.Error
		if errors.As(err, &xe) {
			os.Exit(xe.Kind.ExitStatus())
		}
		os.Exit(1)
	}
}
