package main

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/xtreemos/xos"
)

// listenShim makes the modules' socket, to which everybody may connect: who is
// answered what is decided by who asks. It appears complete, in place of one
// that a predecessor left.
func listenShim(run string) (*net.UnixListener, error) {
	path := filepath.Join(run, "shim.sock")
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, xos.Errorf(xos.Exists, "another process serves %s", path)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !os.IsNotExist(err) {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o666); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, xos.Errorf(xos.Internal, "making %s: %w", path, err)
	}
	return l, nil
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
