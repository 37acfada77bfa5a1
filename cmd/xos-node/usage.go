package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
)

// openLedger opens the records of what was used of this machine.
func openLedger(cfg config, log *slog.Logger) (*usage.Ledger, error) {
	return usage.OpenLedger(filepath.Join(cfg.State, "usage"), 0, time.Now, log)
}

// openStays goes on with the records of what sessions use of this machine.
func openStays(name xos.NodeID, l *usage.Ledger, fence *guard.Guard, accounts *account.Map, log *slog.Logger) *usage.Stays {
	return usage.NewStays(name, l, fence, func(a xos.Account) (uint32, bool) {
		e, ok := accounts.User(a)
		return e.ID, ok
	}, booted(), time.Now, log)
}

// booted is when this machine was started; zero if that is not known.
func booted() time.Time {
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
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
