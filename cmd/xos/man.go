package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/xtreemos/xos"
)

// newManCommand writes the man pages that the packages install.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the man pages of all commands",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeManual(args[0])
		},
	}
}

// writeManual writes a page for each command, and one more under the name
// where it has a short one.
func writeManual(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return xos.Errorf(xos.Invalid, "making %s: %w", dir, err)
	}
	root := newRootCommand()
	root.Long = root.Short + ".\n\n" + manual()
	if err := writePages(root, dir); err != nil {
		return err
	}
	for short, sub := range shortNames {
		c, err := standalone(short, sub)
		if err != nil {
			return err
		}
		if err := writePages(c, dir); err != nil {
			return err
		}
		if err := seeAlso(filepath.Join(dir, short+".1"), c.HasAvailableSubCommands()); err != nil {
			return err
		}
	}
	return nil
}

func writePages(c *cobra.Command, dir string) error {
	c.DisableAutoGenTag = true
	synopsis(c)
	return doc.GenManTree(c, &doc.GenManHeader{Section: "1", Source: "XtreemOS", Manual: "XtreemOS"}, dir)
}

// synopsis completes how commands are called that have subcommands, and leaves
// "[flags]" out where it says nothing.
func synopsis(c *cobra.Command) {
	if c.HasAvailableSubCommands() {
		c.Use += " COMMAND"
	}
	c.DisableFlagsInUseLine = c.HasAvailableSubCommands() || c.DisableFlagParsing
	for _, sub := range c.Commands() {
		synopsis(sub)
	}
}

// standalone is a subcommand as the command that its short name calls.
func standalone(short, sub string) (*cobra.Command, error) {
	root := newRootCommand()
	c, _, err := root.Find([]string{sub})
	if err != nil {
		return nil, err
	}
	root.RemoveCommand(c)
	c.Use = short + strings.TrimPrefix(c.Use, sub)
	c.Short = strings.TrimSuffix(c.Short, " ("+short+")")
	c.PersistentFlags().AddFlag(root.PersistentFlags().Lookup("json"))
	return c, nil
}

// seeAlso sends the reader of a short name's page on to the whole.
func seeAlso(path string, has bool) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	heading := "\n.SH SEE ALSO\n"
	if has {
		heading = ".PP\n"
	}
	_, err = f.WriteString(heading + "\\fBxos(1)\\fP\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// manual is what xos(1) says beyond the list of commands.
func manual() string {
	var b strings.Builder
	b.WriteString(`A user logs in with **xos login**, then to any of its machines with
plain ssh(1): **ssh USER@VO@NODE**. There **xsub** runs jobs. Administrators set
machines up with **xos up** and, as root on the core, keep users, VOs and machines
with **xos user**, **xos vo** and **xos node**.

With **--json** every answer is JSON. **xos completion** prints completions for a
shell; the packages have them installed.

# EXIT STATUS
0 is success. What a job or a question answers is with its command: xsub and
xwait end as the job did. An error ends with

`)
	statuses := map[int][]string{}
	for k := xos.Internal; k <= xos.TooLarge; k++ {
		statuses[k.ExitStatus()] = append(statuses[k.ExitStatus()], k.String())
	}
	for _, n := range slices.Sorted(maps.Keys(statuses)) {
		fmt.Fprintf(&b, "%d\n: %s\n\n", n, strings.Join(statuses[n], "; "))
	}
	b.WriteString(`64 is also a wrong flag or argument.

# ENVIRONMENT
**SSH_AUTH_SOCK**
: the ssh-agent that **xos login** gives the credential to

# FILES
*~/.xos*
: a directory for each account with key and certificates; *client.toml* and *trust*, if **xos trust** was used without root

*/etc/xos/client.toml*, */etc/xos/trust*
: the machine's grid and its keys

*/etc/ssh/ssh_config.d/60-xos.conf*
: makes ssh find the credential by the name of the account

*/run/xos/core.sock*, */run/xos/session.sock*
: where the core and this machine's session service are asked
`)
	return b.String()
}
