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
	"strings"
	"unicode"

	"github.com/xtreemos/xos"
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
	principal, err := ask(os.Args[1], os.Args[2], os.Args[3])
	if err == nil {
		_, err = fmt.Println(principal)
	}
	if err != nil {
		report(os.Args[1], err)
		os.Exit(1)
	}
}

// ask gives the principal, which is the user's own name and never another:
// each line that sshd reads lets in, and may hold options.
func ask(user, keyType, key string) (string, error) {
	client := wire.Client{Path: wire.SocketPath, Root: true}
	principal, err := client.Principals(context.Background(), user, keyType, key)
	if err == nil && principal != user {
		return "", xos.Errorf(xos.Internal, "the session service gave the principal %.80q", principal)
	}
	return principal, err
}

// report tells the system's log, since sshd drops what is printed on standard
// error: a refusal for information, and as an error what an administrator has
// to mend before anyone can log in.
func report(user string, err error) {
	w, serr := syslog.New(syslog.LOG_AUTH|syslog.LOG_INFO, "xos-principals")
	if serr != nil {
		return
	}
	text := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, err.Error())
	text = fmt.Sprintf("%.80q refused: %s", user, text)
	switch xos.KindOf(err) {
	case xos.Unavailable, xos.Internal:
		w.Err(text)
	default:
		w.Info(text)
	}
}
