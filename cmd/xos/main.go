// Command xos is XtreemOS's command line: logging in to the grid, jobs, and
// the administration of users, virtual organisations and machines.
//
// Called as xsub, xps, xkill, xwait or xjob it is that subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
)

// version is set by the build.
var version = "dev"

// shortNames are the names under which a subcommand is a command of its own.
var shortNames = map[string]string{"xsub": "sub", "xps": "ps", "xkill": "kill", "xwait": "wait", "xjob": "job"}

func main() {
	if r, ok := takeShadowRequest(); ok {
		os.Exit(runShadow(r)) // this process stands for a job, under its name
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := execute(ctx, os.Args)
	stop()
	os.Exit(exitStatus(err))
}

func execute(ctx context.Context, args []string) error {
	root := newRootCommand()
	argv := args[1:]
	if sub, ok := shortNames[filepath.Base(args[0])]; ok {
		argv = asSubcommand(sub, argv)
	}
	root.SetArgs(argv)
	return root.ExecuteContext(ctx)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "xos",
		Short:         "One grid out of the Linux machines of many organisations",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true // the packages install what it prints
	root.PersistentFlags().Bool("json", false, "print JSON in place of text")
	root.AddGroup(&cobra.Group{ID: "user", Title: "For users:"}, &cobra.Group{ID: "jobs", Title: "Jobs:"},
		&cobra.Group{ID: "admin", Title: "For administrators:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("user", newLoginCommand(), newLogoutCommand(), newPasswdCommand(), newWhoamiCommand(), newTrustCommand(), newExplainCommand(), newDelegateCommand())
	add("jobs", jobCommands()...)
	add("admin", newUpCommand(), newDownCommand(), newStatusCommand(), newVOCommand(), newUserCommand(),
		newNodeCommand(), newBanCommand(), newCACommand(), newVolumeCommand(), newSessionCommand(), newUIDCommand(), newGuardCommand(), newAuditCommand(), newUsageCommand())
	root.AddCommand(newManCommand())
	return root
}

// exitStatus prints an error, if there is one to print, and gives the process's
// exit status for it.
func exitStatus(err error) int {
	if err == nil {
		return 0
	}
	var status exitError
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintln(os.Stderr, message(err))
	var xe *xos.Error
	if !errors.As(err, &xe) {
		return 64 // cobra's: a wrong flag or argument
	}
	return xos.KindOf(err).ExitStatus()
}

// exitError ends the process with a status and no message: everything was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// message gives an error in two lines: what is wrong, and what to do about it.
func message(err error) string {
	var xe *xos.Error
	text := "xos: " + err.Error()
	if errors.As(err, &xe) && xe.Hint != "" {
		plain := *xe
		plain.Hint = ""
		text = "xos: " + plain.Error() + "\n     try: " + xe.Hint
	}
	return text
}
