package xfstest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv/pebble"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/vom/credential/credtest"
	"github.com/xtreemos/xos/xfs"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/dir"
	"github.com/xtreemos/xos/xfs/frame"
	"github.com/xtreemos/xos/xfs/fuse"
	"github.com/xtreemos/xos/xfs/mrc"
	"github.com/xtreemos/xos/xfs/osd"
)

// roleVariable tells a copy of the test program what to be.
const roleVariable = "XOS_XFS_ROLE"

// Main runs a test program's tests or, in a copy of it that a Grid started,
// the service which that copy is to be.
func Main(m *testing.M) {
	text := os.Getenv(roleVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = r.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// role is what a process of a Grid is told to be.
type role struct {
	Kind     string // "mrc", "osd" or "mount"
	Dir      string // what all of the grid share
	Name     string // of its certificate
	Listen   string
	Capacity int64
	// MRC is the address for mounts, OSD that which mounts are told.
	MRC, OSD   string
	Mountpoint string
	Config     client.Config
}

// run is a process's life: until its parent ends or it is told to.
func (r role) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var bundle vom.Bundle
	if err := readJSON(filepath.Join(r.Dir, "bundle"), &bundle); err != nil {
		return err
	}
	var cert tls.Certificate
	if err := readJSON(filepath.Join(r.Dir, "cert-"+r.Name), &cert.Certificate); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(r.Dir, "key-"+r.Name))
	if err != nil {
		return err
	}
	cert.PrivateKey = privateKey(key)
	v := credential.NewVerifier(func() vom.Bundle { return bundle }, time.Now)
	switch r.Kind {
	case "mrc":
		return r.metadata(ctx, v, credtest.Show(cert), log)
	case "osd":
		return r.storage(ctx, v, credtest.Show(cert), log)
	}
	return r.mount(ctx, v, credtest.Show(cert), log)
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// ready tells the parent where this process listens.
func ready(address string) { fmt.Println("ready", address) }

func (r role) metadata(ctx context.Context, v *credential.Verifier, cert credential.Certificate, log *slog.Logger) error {
	db, err := pebble.Open(filepath.Join(r.Dir, "kv"), log)
	if err != nil {
		return err
	}
	defer db.Close()
	d := dir.New(dir.Config{Alive: time.Hour}, db)
	m, err := mrc.New(ctx, mrc.Config{Log: log}, db, d)
	if err != nil {
		return err
	}
	d.Use(m, m.Key())
	if err := os.WriteFile(filepath.Join(r.Dir, "capability-key"), m.Key(), 0o600); err != nil {
		return err
	}
	id, err := os.ReadFile(filepath.Join(r.Dir, "osd", "id"))
	if err != nil {
		return err
	}
	if err := d.Announce(ctx, strings.TrimSpace(string(id)), r.OSD, 1<<40, 1<<40, "core"); err != nil {
		return err
	}
	for volume, account := range map[xos.VolumeID]string{Volume: "alice@physics", "home-physics-bob": "bob@physics"} {
		owner, err := xos.ParseAccount(account)
		if err != nil {
			return err
		}
		if err := d.CreateVolume(ctx, volume, owner); err != nil && !xos.Is(err, xos.Exists) {
			return err
		}
	}
	l, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return err
	}
	purged := make(chan error, 1)
	go func() {
		purged <- m.Purge(ctx, "core", func(ctx context.Context, at xfs.Target) (xfs.OSD, func(), error) {
			c := frame.NewClient(func(ctx context.Context) (net.Conn, error) {
				return (&tls.Dialer{Config: v.ClientTLS(cert, vom.ServiceStorage)}).DialContext(ctx, "tcp", at.Address)
			})
			return frame.NewOSD(c), func() { c.Close() }, nil
		})
	}()
	ready(l.Addr().String())
	err = m.Serve(ctx, tls.NewListener(l, v.ServerTLS(cert, true)), v, d)
	<-purged
	return err
}

func (r role) storage(ctx context.Context, v *credential.Verifier, cert credential.Certificate, log *slog.Logger) error {
	store, err := osd.Open(filepath.Join(r.Dir, "osd"), r.Capacity)
	if err != nil {
		return err
	}
	defer store.Close()
	service := osd.NewService(store, time.Now, log)
	l, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return err
	}
	// The metadata service, which makes the key, may start later.
	go func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			if key, err := os.ReadFile(filepath.Join(r.Dir, "capability-key")); err == nil && len(key) == 32 {
				service.SetKey(key)
				return
			}
		}
	}()
	ready(l.Addr().String())
	return service.Serve(ctx, tls.NewListener(l, v.ServerTLS(cert, true)), v)
}

func (r role) mount(ctx context.Context, v *credential.Verifier, cert credential.Certificate, log *slog.Logger) error {
	c := client.New(r.Config, client.Remote{MRC: r.MRC, Volume: Volume, Log: log,
		TLSMRC: v.ClientTLS(cert, vom.ServiceCore), TLSStorage: v.ClientTLS(cert, vom.ServiceStorage)}.Deps())
	background, stop := context.WithCancel(context.Background())
	defer stop()
	go c.Run(background)
	fs := fuse.New(c, fuse.Identity{Account: "alice@physics", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, log)
	server, err := fuse.Mount(fs, Volume, r.Mountpoint)
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	ready(r.Mountpoint)
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = c.Close(end)
	syscall.Unmount(r.Mountpoint, syscall.MNT_DETACH)
	return err
}
