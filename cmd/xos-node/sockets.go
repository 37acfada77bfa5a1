package main

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/xtreemos/xos/infra/handover"
)

// listen makes the sockets to which everybody of this machine may connect, the
// modules' and the users': who is answered what is decided by who asks. They
// outlive a restart, so that a login waits for it.
func listen(run string) (shim, users *net.UnixListener, err error) {
	held := handover.Take()
	defer held.Close()
	if shim, err = held.Listen("shim", filepath.Join(run, "shim.sock"), 0o666); err != nil {
		return nil, nil, err
	}
	if users, err = held.Listen("session", filepath.Join(run, "session.sock"), 0o666); err != nil {
		shim.Close()
		return nil, nil, err
	}
	return shim, users, nil
}

// advertised gives where other machines reach this one: what the
// configuration says, or else the address from which the core is reached.
func advertised(cfg config, at net.Addr) (string, error) {
	if cfg.Advertise != "" {
		return cfg.Advertise, nil
	}
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return at.String(), nil
	}
	// No packet is sent: connecting a UDP socket only asks the routes. Where
	// they cannot say, logins must work all the same: then the host's name has
	// to do.
	c, err := net.DialTimeout("udp", cfg.Core, 3*time.Second)
	if err != nil {
		host, err := os.Hostname()
		return net.JoinHostPort(host, port), err
	}
	defer c.Close()
	host, _, err = net.SplitHostPort(c.LocalAddr().String())
	return net.JoinHostPort(host, port), err
}
