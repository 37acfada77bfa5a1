package main

import (
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos/aem/directory"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom/credential"
)

// handleJobs serves the job directory, which the caller runs, and what jobs used.
func handleJobs(mux *http.ServeMux, db kv.Store, v *credential.Verifier, opts []connect.HandlerOption, log *slog.Logger) *directory.Directory {
	d := directory.New(directory.Config{}, db, v, time.Now, log)
	mux.Handle(xosv1connect.NewJobDirectoryHandler(d, opts...))
	mux.Handle(xosv1connect.NewUsageHandler(d, opts...))
	return d
}
