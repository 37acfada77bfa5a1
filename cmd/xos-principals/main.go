// Command xos-principals is sshd's AuthorizedPrincipalsCommand for grid users:
// it asks the session service which principal the certificate shown must name,
// and prints that, or nothing. Whatever goes wrong, nobody is let in.
//
//	AuthorizedPrincipalsCommand /usr/libexec/xos/xos-principals %u %t %k
package main

import (
	"context"
	"fmt"
	"log/syslog"
	"os"

	"github.com/xtreemos/xos/session/wire"
)

// version is set by the build.
var version = "dev"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-version" {
		fmt.Println(version)
		return
	}
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: xos-principals USER KEYTYPE KEY")
		os.Exit(64)
	}
	client := wire.Client{Path: wire.SocketPath, Root: true}
	principal, err := client.Principals(context.Background(), os.Args[1], os.Args[2], os.Args[3])
	if err == nil {
		_, err = fmt.Println(principal)
	}
	if err != nil {
		// sshd drops what is printed on standard error.
		if w, serr := syslog.New(syslog.LOG_AUTH|syslog.LOG_INFO, "xos-principals"); serr == nil {
			w.Info(fmt.Sprintf("%.80q refused: %v", os.Args[1], err))
		}
		os.Exit(1)
	}
}
