package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Suite is the Debian release the nodes run.
const Suite = "trixie"

// CacheDir holds base roots and what is made of them: a few hundred megabytes
// each, worth keeping.
const CacheDir = "/var/cache/xtreemos"

// basePackages is what every node has before XtreemOS is installed: a small
// server with sshd and logind, the dependencies of our packages (nodes have no
// way to a mirror), and the tools that tests look with.
var basePackages = []string{
	"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd",
	"openssh-server", "openssh-client", "sudo", "iproute2", "iputils-ping",
	"nftables", "ca-certificates", "procps", "psmisc", "fuse3", "criu",
	"git", "make", "gcc", "libc6-dev", "less", "lsof", "strace", "locales-all",
	"pamtester", "acl", "attr", "bpftool", "cron", "at", "uidmap",
	"systemd-userdbd", "libnss-systemd",
	"wtmpdb", "libpam-wtmpdb", "lastlog2", "libpam-lastlog2",
}

// Base gives the directory of the read-only root all nodes share, or of one with
// more packages, and makes it first where it is missing. It is keyed by the list
// of packages; a root with another list is the seed of the new one, so adding a
// package takes seconds. progress receives what debootstrap and apt print; nil
// discards it.
func Base(ctx context.Context, log *slog.Logger, progress io.Writer, more ...string) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	if err := os.MkdirAll(CacheDir, 0o755); err != nil {
		return "", err
	}
	unlock, err := Lock(ctx, filepath.Join(CacheDir, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	packages := slices.Concat(basePackages, more)
	dir := rootDir(more)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(CacheDir, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return "", err
	}
	seed := newestBase()
	if seed != "" {
		log.Info("extending the Debian base root", "from", seed)
		err = run(ctx, progress, "cp", "-a", "--reflink=auto", seed+"/.", work)
	} else {
		log.Info("making the Debian base root, once; this takes a minute or two", "suite", Suite)
		err = bootstrap(ctx, progress, work)
	}
	if err == nil {
		err = addPackages(ctx, progress, work, packages)
	}
	if err != nil {
		return "", fmt.Errorf("making base root %s: %w", dir, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return "", err
	}
	return dir, nil
}

// HasRoot says whether the root with these packages more is there.
func HasRoot(more ...string) bool {
	_, err := os.Stat(rootDir(more))
	return err == nil
}

// rootDir is where a root is. One with more packages has another name, so that
// it never becomes the seed of the nodes' own.
func rootDir(more []string) string {
	if len(more) > 0 {
		return filepath.Join(CacheDir, "more-"+baseKey(slices.Concat(basePackages, more)))
	}
	return filepath.Join(CacheDir, Suite+"-"+baseKey(basePackages))
}

func baseKey(packages []string) string {
	sorted := slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:6])
}

// newestBase finds a root of the same suite with other packages.
func newestBase() string {
	found, _ := filepath.Glob(filepath.Join(CacheDir, Suite+"-*"))
	var newest string
	var when int64
	for _, dir := range found {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() && info.ModTime().Unix() > when {
			newest, when = dir, info.ModTime().Unix()
		}
	}
	return newest
}

func bootstrap(ctx context.Context, progress io.Writer, dir string) error {
	cmd := exec.CommandContext(ctx, "debootstrap", "--variant=minbase",
		"--include="+strings.Join(basePackages, ","), Suite, dir, Mirror(ctx))
	cmd.Env = os.Environ()
	if proxy := AptProxy(ctx); proxy != "" {
		cmd.Env = append(cmd.Env, "http_proxy="+proxy)
	}
	cmd.Stdout, cmd.Stderr = progress, progress
	return cmd.Run()
}

// addPackages installs what is missing in a root, with the host's network.
func addPackages(ctx context.Context, progress io.Writer, dir string, packages []string) error {
	var missing []string
	for _, name := range packages {
		out, err := exec.CommandContext(ctx, "chroot", dir,
			"dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		resolv, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "etc/resolv.conf"), resolv, 0o644); err != nil {
			return err
		}
		// Services must not start in a directory that is no machine.
		policy := filepath.Join(dir, "usr/sbin/policy-rc.d")
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
		apt := []string{"chroot", dir, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"}
		if proxy := AptProxy(ctx); proxy != "" {
			apt = append(apt, "-o", "Acquire::http::Proxy="+proxy)
		}
		if err := run(ctx, progress, append(apt, "update")...); err != nil {
			return err
		}
		install := append(apt, "install", "--no-install-recommends")
		if err := run(ctx, progress, append(install, missing...)...); err != nil {
			return err
		}
	}
	return run(ctx, progress, "chroot", dir, "apt-get", "clean")
}

// run runs a program of the host and shows what it prints.
func run(ctx context.Context, out io.Writer, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	// An interrupt at the terminal reaches us, and the context tells the child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	return nil
}
