package main

import "github.com/spf13/cobra"

// jobCommands are the commands for jobs.
func jobCommands() []*cobra.Command { return nil }
