// Package api holds the protobuf definitions of the wire and their generated
// code, in api/xos/v1. It has types only, no logic.
package api

//go:generate protoc -I . --go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative xos/v1/audit.proto xos/v1/core.proto xos/v1/delegation.proto xos/v1/guard.proto xos/v1/job.proto xos/v1/revocation.proto xos/v1/uid.proto xos/v1/usage.proto
