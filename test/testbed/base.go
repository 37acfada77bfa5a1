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

// Suite is a Debian release that nodes run, by its name.
type Suite string

// The releases that our packages are for.
const (
	Trixie   Suite = "trixie"   // Debian 13
	Bookworm Suite = "bookworm" // Debian 12
)

// Suites are all of them.
var Suites = []Suite{Trixie, Bookworm}

// Chosen is the suite that the variable XOS_DEBIAN names, which grids run where
// their Config names none; trixie, where it is not set.
func Chosen() Suite {
	if s := os.Getenv("XOS_DEBIAN"); s != "" {
		return Suite(s)
	}
	return Trixie
}

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
}

// suitePackages is what only one release has: who was logged in is in databases
// since Debian 13, where Debian 12 has the files utmp, wtmp and lastlog.
var suitePackages = map[Suite][]string{
	Trixie:   {"wtmpdb", "libpam-wtmpdb", "lastlog2", "libpam-lastlog2"},
	Bookworm: {},
}

// packages is what its root has.
func (s Suite) packages(more []string) []string {
	return slices.Concat(basePackages, suitePackages[s], more)
}

// Base gives the directory of the read-only root all nodes share, or of one with
// more packages, and makes it first where it is missing. It is keyed by the list
// of packages; a root with another list is the seed of the new one, so adding a
// package takes seconds. progress receives what debootstrap and apt print; nil
// discards it.
func (s Suite) Base(ctx context.Context, log *slog.Logger, progress io.Writer, more ...string) (string, error) {
	if !slices.Contains(Suites, s) {
		return "", fmt.Errorf("testbed: nodes run %v, not %q", Suites, s)
	}
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

	dir := s.rootDir(more)
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
	seed := s.newestBase()
	if seed != "" {
		log.Info("extending the Debian base root", "from", seed)
		err = run(ctx, progress, "cp", "-a", "--reflink=auto", seed+"/.", work)
	} else {
		log.Info("making the Debian base root, once; this takes a minute or two", "suite", s)
		err = s.bootstrap(ctx, progress, work)
	}
	if err == nil {
		err = addPackages(ctx, progress, work, s.packages(more))
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
func (s Suite) HasRoot(more ...string) bool {
	_, err := os.Stat(s.rootDir(more))
	return err == nil
}

// rootDir is where a root is. One with more packages has another name, so that
// it never becomes the seed of the nodes' own.
func (s Suite) rootDir(more []string) string {
	name := string(s)
	if len(more) > 0 {
		name = "more"
	}
	return filepath.Join(CacheDir, name+"-"+baseKey(s.packages(more)))
}

func baseKey(packages []string) string {
	sorted := slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:6])
}

// newestBase finds a root of the same suite with other packages.
func (s Suite) newestBase() string {
	found, _ := filepath.Glob(filepath.Join(CacheDir, string(s)+"-*"))
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

func (s Suite) bootstrap(ctx context.Context, progress io.Writer, dir string) error {
	cmd := exec.CommandContext(ctx, "debootstrap", "--variant=minbase",
		"--include="+strings.Join(s.packages(nil), ","), string(s), dir, Mirror(ctx))
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
