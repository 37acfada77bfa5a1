package vm

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/xtreemos/xos/test/testbed"
)

//go:embed kernels.sh
var kernelsScript string

//go:embed image.sh
var imageScript string

// Kernel is a Debian release's kernel, by the release's name.
type Kernel string

// The kernels that machines can have.
const (
	Debian13 Kernel = "trixie"   // 6.12
	Debian12 Kernel = "bookworm" // 6.1
)

// Kernels are all of them.
var Kernels = []Kernel{Debian13, Debian12}

// keepImages is how many images are kept for the next runs: those of this tree
// and of the one it is compared with.
const keepImages = 3

// image is a directory with root.img, and vmlinuz.KERNEL and initrd.KERNEL of
// each kernel.
func image(ctx context.Context, log *slog.Logger, progress io.Writer, debs []string) (string, error) {
	base, err := testbed.Trixie.Base(ctx, log, progress)
	if err != nil {
		return "", err
	}
	unlock, err := testbed.Lock(ctx, filepath.Join(testbed.CacheDir, ".vm.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	layer, err := kernels(ctx, log, progress, base)
	if err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(testbed.CacheDir, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	agent := filepath.Join(scratch, "guest")
	if err := build(ctx, agent); err != nil {
		return "", err
	}
	sort.Strings(debs)
	id, err := digest(layer+imageScript, append([]string{agent}, debs...)...)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(testbed.CacheDir, "vm-image-"+id)
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	}
	log.Info("making the root file system of the virtual machines", "packages", len(debs))
	work := filepath.Join(scratch, "image")
	if err := script(ctx, progress, imageScript, append([]string{base, layer, work, agent}, debs...)...); err != nil {
		return "", fmt.Errorf("making image %s: %w", dir, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return "", err
	}
	prune()
	return dir, nil
}

// kernels gives the layer with the kernels over the base root.
func kernels(ctx context.Context, log *slog.Logger, progress io.Writer, base string) (string, error) {
	id, err := digest(filepath.Base(base) + kernelsScript)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(testbed.CacheDir, "vm-kernels-"+id)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	log.Info("adding Debian's kernels to the base root, once; this takes a minute")
	work, err := os.MkdirTemp(testbed.CacheDir, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	argv := []string{base, work, testbed.Mirror(ctx), testbed.AptProxy(ctx)}
	for _, k := range Kernels {
		argv = append(argv, string(k))
	}
	if err := script(ctx, progress, kernelsScript, argv...); err != nil {
		return "", fmt.Errorf("adding kernels: %w", err)
	}
	return dir, os.Rename(work, dir)
}

// build makes the program that runs inside, from the tree this
// process works in.
func build(ctx context.Context, target string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", target, "github.com/xtreemos/xos/test/vm/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the guest's program: %w\n%s", err, out)
	}
	return nil
}

// script runs one of ours where its mounts and processes end with it.
func script(ctx context.Context, progress io.Writer, text string, argv ...string) error {
	if progress == nil {
		progress = io.Discard
	}
	var tail strings.Builder
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", text, "script"}, argv...)...)
	cmd.Stdout, cmd.Stderr = progress, io.MultiWriter(progress, &tail)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		text := tail.String()
		return fmt.Errorf("%w: %s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// digest is a short name for a text and the files' content.
func digest(text string, files ...string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %s", len(text), text)
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		size, err := io.Copy(sum, file)
		file.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, " %s %d", filepath.Base(name), size)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// prune removes all but the newest images. One that a machine runs on stays
// readable for it.
func prune() {
	found, _ := filepath.Glob(filepath.Join(testbed.CacheDir, "vm-image-*"))
	sort.Slice(found, func(i, j int) bool { return modified(found[i]).After(modified(found[j])) })
	for _, dir := range found[min(keepImages, len(found)):] {
		_ = os.RemoveAll(dir)
	}
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
