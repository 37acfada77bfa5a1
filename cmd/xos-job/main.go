// Command xos-job supervises one job unit: xos-node starts it with the unit's
// directory, and it stays until the job has ended, whatever becomes of
// xos-node. It is not meant to be called by hand.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // joins namespaces before Go starts
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/aem/supervise"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: xos-job DIRECTORY (xos-node calls this; users call xsub)")
		os.Exit(64)
	}
	switch os.Args[1] {
	case "init": // libcontainer's half inside the new namespaces
		runtime.GOMAXPROCS(1)
		runtime.LockOSThread()
		libcontainer.Init()
	case "first": // pid 1 of the job
		os.Exit(supervise.First())
	}
	// The job is bound to the life of the thread that starts it.
	runtime.LockOSThread()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// Descriptor 3 tells xos-node that the job runs, or why it does not.
	unix.CloseOnExec(3)
	answer := os.NewFile(3, "answer")
	started := false
	err := supervise.Run(context.Background(), os.Args[1], log, func() {
		started = true
		fmt.Fprint(answer, "ok")
		answer.Close()
	})
	if err != nil {
		if !started {
			fmt.Fprint(answer, err.Error())
		}
		log.Error("supervising a job", "unit", os.Args[1], "error", err)
		os.Exit(70)
	}
}
