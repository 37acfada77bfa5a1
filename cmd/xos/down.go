package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xtreemos/xos"
)

func newDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop XtreemOS on this machine; what is stored stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return xos.Errorf(xos.Permission, "only root may stop the services").WithHint("sudo xos down")
			}
			var stopped []string
			for _, u := range slices.Backward(units) {
				if !u.installed() {
					continue
				}
				if err := systemctl(cmd.Context(), "disable", "--now", u.name); err != nil {
					return err
				}
				stopped = append(stopped, u.name)
			}
			return show(cmd, map[string]any{"stopped": stopped}, func(w io.Writer) {
				for _, name := range stopped {
					fmt.Fprintf(w, "stopped %s\n", name)
				}
			})
		},
	}
}
