// Command xos-core is the grid's core: the certification authorities, the
// records of users, VOs and machines, the bundle by which machines decide, the
// bus, and the directory and metadata service of the file system.
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
	flag.CommandLine = flag.NewFlagSet("xos-core", flag.ExitOnError) // without those of libraries
	path := flag.String("config", "/etc/xos/core.toml", "configuration file")
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
		fmt.Fprintln(os.Stderr, "xos-core:", err)
		var xe *xos.Error
		if errors.As(err, &xe) {
			os.Exit(xe.Kind.ExitStatus())
		}
		os.Exit(1)
	}
}
