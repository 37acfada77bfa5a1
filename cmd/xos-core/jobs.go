package main

import (
	"net/http"

	"connectrpc.com/connect"

	"github.com/xtreemos/xos/infra/kv"
	"github.com/xtreemos/xos/vom/credential"
)

func handleJobs(mux *http.ServeMux, db kv.Store, v *credential.Verifier, opts []connect.HandlerOption) {
}
