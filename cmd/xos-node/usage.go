package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// openLedger opens the records of what jobs used of this machine.
func openLedger(cfg config, log *slog.Logger) (*usage.Ledger, error) {
	return usage.OpenLedger(filepath.Join(cfg.State, "usage"), 0, time.Now, log)
}

// localUsage reads records for this machine's users: root the machine's own, a
// user hers in the core, with the credential that her session has.
func localUsage(l *usage.Ledger, sessions session.Sessions, v *credential.Verifier, core string) usage.Local {
	return usage.Local{Ledger: l, Sessions: sessions, CoreFor: func(ctx context.Context, a xos.Account) (xosv1connect.UsageClient, func(), error) {
		cred, err := sessions.Credential(ctx, a)
		if err != nil {
			return nil, nil, err
		}
		var show credential.Certificate = func() (*tls.Certificate, error) { return &cred.Certificate, nil }
		c := rpc.TLSClient(v.ClientTLSTo(show, vom.ServiceCore, ""))
		return xosv1connect.NewUsageClient(c, "https://"+core, rpc.ClientOptions()...), c.CloseIdleConnections, nil
	}}
}
