package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// jsonOutput reports whether the user asked for JSON.
func jsonOutput(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("json")
	return err == nil && on
}

// show prints an answer: as JSON if asked for, else what text writes.
func show(cmd *cobra.Command, answer any, text func(w io.Writer)) error {
	out := cmd.OutOrStdout()
	if !jsonOutput(cmd) {
		text(out)
		return nil
	}
	if m, ok := answer.(proto.Message); ok {
		data, err := protojson.MarshalOptions{Multiline: true, Indent: "  ", EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, string(data))
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

// table prints rows under a heading, in aligned columns.
func table(w io.Writer, heading string, rows func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	})
	t.Flush()
}

// when shows a time in the local zone; "-" for none.
func when(t *timestamppb.Timestamp) string {
	if t == nil || t.Seconds <= 0 {
		return "-"
	}
	return t.AsTime().Local().Format(time.DateTime)
}

// orDash shows an empty string as "-".
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
