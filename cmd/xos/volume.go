package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
)

func directory() (xosv1connect.DirectoryClient, error) {
	c, err := admin()
	if err != nil {
		return nil, err
	}
	return xosv1connect.NewDirectoryClient(c, rpc.UnixBase, rpc.ClientOptions()...), nil
}

func newVolumeCommand() *cobra.Command {
	c := &cobra.Command{Use: "volume", Short: "File system volumes and the storage under them"}
	c.AddCommand(newVolumeListCommand(), newVolumeStorageCommand())
	return c
}

func newVolumeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the volumes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, directory, xosv1connect.DirectoryClient.ListVolumes, &xosv1.ListVolumesRequest{}, func(w io.Writer, a *xosv1.ListVolumesResponse) {
				table(w, "VOLUME\tOWNER\tCREATED", func(row func(...any)) {
					for _, v := range a.Volumes {
						row(v.Name, v.Owner, when(v.Created))
					}
				})
			})
		},
	}
}

func newVolumeStorageCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "storage",
		Short: "List the object storage devices (OSDs)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, directory, xosv1connect.DirectoryClient.ListStorage, &xosv1.ListStorageRequest{}, func(w io.Writer, a *xosv1.ListStorageResponse) {
				table(w, "OSD\tNODE\tADDRESS\tTOTAL\tFREE\tSEEN", func(row func(...any)) {
					for _, s := range a.Storage {
						seen := fmt.Sprintf("%.0f s ago", time.Since(s.Seen.AsTime()).Seconds())
						row(s.Id, s.Node, s.Address, size(s.Total), size(s.Free), seen)
					}
				})
			})
		},
	}
}

// size shows bytes with a binary unit.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTP"[unit])
}
