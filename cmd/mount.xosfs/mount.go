package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-systemd/v22/daemon"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/credential"
	"github.com/xtreemos/xos/xfs/client"
	"github.com/xtreemos/xos/xfs/fuse"
)

// closeWithin is how long unwritten data is waited for at the end.
const closeWithin = 30 * time.Second

// run mounts the volume and serves it until ctx ends or it is unmounted.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	verifier, err := loadVerifier(cfg.Roots)
	if err != nil {
		return err
	}
	cred := &credentials{dir: cfg.Credentials}
	if _, err := cred.get(); err != nil {
		return err
	}
	coreTLS := verifier.ClientTLS(cred.get, vom.ServiceCore)
	if cfg.MRC == "" {
		if cfg.MRC, err = findMRC(ctx, cfg, coreTLS); err != nil {
			return err
		}
	}
	remote := client.Remote{
		MRC: cfg.MRC, Volume: xos.VolumeID(cfg.Volume), Log: log,
		TLSMRC: coreTLS, TLSStorage: verifier.ClientTLS(cred.get, vom.ServiceStorage),
		Shown: func() any { pair, _ := cred.get(); return pair },
	}
	c := client.New(client.Config{}, remote.Deps())
	background, stop := context.WithCancel(context.Background())
	defer stop()
	go c.Run(background)
	fs := fuse.New(c, fuse.Identity{Account: cfg.Account, UID: cfg.UID, GID: cfg.GID, Groups: cfg.Groups}, log)
	if err := clearMountpoint(cfg.Mountpoint); err != nil {
		return err
	}
	server, err := fuse.Mount(fs, xos.VolumeID(cfg.Volume), cfg.Mountpoint)
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return xos.Errorf(xos.Unavailable, "mounting %s: %w", cfg.Volume, err)
	}
	log.Info("mounted", "volume", cfg.Volume, "mountpoint", cfg.Mountpoint, "account", cfg.Account, "version", version)
	daemon.SdNotify(false, daemon.SdNotifyReady)
	return serve(ctx, cfg, c, server, log)
}

// serve waits for the end, and then for what is not yet written.
func serve(ctx context.Context, cfg config, c *client.Client, server *gofuse.Server, log *slog.Logger) error {
	unmounted := make(chan struct{})
	go func() { server.Wait(); close(unmounted) }()
	select {
	case <-unmounted:
	case <-ctx.Done():
	}
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	end, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err := c.Close(end)
	select {
	case <-unmounted:
		return err
	default:
	}
	// Who is still inside keeps a dead directory; nobody new gets in.
	if uerr := unix.Unmount(cfg.Mountpoint, unix.MNT_DETACH); uerr != nil && !errors.Is(uerr, unix.EINVAL) {
		log.Warn("unmounting", "error", uerr)
	}
	return err
}

func loadVerifier(path string) (*credential.Verifier, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, xos.Errorf(xos.Invalid, "reading the grid's root certificate: %w", err)
	}
	if block, _ := pem.Decode(data); block == nil {
		return nil, xos.Errorf(xos.Invalid, "%s holds no certificate", path)
	}
	b := vom.Bundle{X509Roots: []string{string(data)}}
	return credential.NewVerifier(func() vom.Bundle { return b }, time.Now), nil
}

// credentials reads the delegated credential, anew when its file has changed.
type credentials struct {
	dir string

	mu   sync.Mutex
	read os.FileInfo
	pair *tls.Certificate
}

func (c *credentials) get() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := filepath.Join(c.dir, "cert.pem")
	info, err := os.Stat(path)
	if err == nil && c.pair != nil && os.SameFile(info, c.read) && info.ModTime().Equal(c.read.ModTime()) {
		return c.pair, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(path, filepath.Join(c.dir, "key.pem"))
	}
	if err != nil {
		if c.pair != nil {
			return c.pair, nil // being replaced, or taken away: the servers judge
		}
		return nil, xos.Errorf(xos.Unavailable, "reading the delegated credential: %w", err)
	}
	c.read, c.pair = info, &pair
	return c.pair, nil
}

// findMRC asks the core for the volume's metadata service.
func findMRC(ctx context.Context, cfg config, coreTLS *tls.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	directory := xosv1connect.NewDirectoryClient(rpc.TLSClient(coreTLS), "https://"+cfg.Core, rpc.ClientOptions()...)
	resp, err := directory.ListVolumes(ctx, connect.NewRequest(&xosv1.ListVolumesRequest{Name: cfg.Volume}))
	if err != nil {
		return "", xos.Errorf(xos.KindOf(err), "asking %s for volume %s: %w", cfg.Core, cfg.Volume, err)
	}
	if len(resp.Msg.Volumes) != 1 {
		return "", xos.Errorf(xos.NotFound, "there is no volume %s for %s", cfg.Volume, cfg.Account)
	}
	host, port, err := net.SplitHostPort(resp.Msg.Volumes[0].Mrc)
	if err != nil {
		return "", xos.Errorf(xos.Internal, "the core says %q for its metadata service", resp.Msg.Volumes[0].Mrc)
	}
	if host == "" {
		if host, _, err = net.SplitHostPort(cfg.Core); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// clearMountpoint takes away what a killed predecessor left, several layers
// if need be, and checks that nothing else is there.
func clearMountpoint(dir string) error {
	for range 16 {
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				return xos.Errorf(xos.Unavailable, "removing a dead mount on %s: %w", dir, err)
			}
			continue
		}
		if err != nil {
			return xos.Errorf(xos.Invalid, "the mount point: %w", err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return xos.Errorf(xos.Invalid, "%s is no directory", dir)
		}
		return nil
	}
	return xos.Errorf(xos.Unavailable, "%s is covered by too many dead mounts", dir)
}
