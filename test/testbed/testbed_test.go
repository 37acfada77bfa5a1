package testbed_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/testbed"
)

// TestRootGrid boots two nodes and looks at everything the end-to-end tests
// will rely on, then that nothing is left.
func TestRootGrid(t *testing.T) {
	need.Root(t)
	for _, command := range []string{"systemd-nspawn", "debootstrap", "ip", "nsenter"} {
		need.Command(t, command)
	}
	need.File(t, "/dev/fuse")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	grid, err := testbed.Start(ctx, testbed.Config{Name: "selftest", Nodes: []string{"left", "right"}, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := grid.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t)
	})
	left, right := grid.Node("left"), grid.Node("right")

	// Debian 12's CRIU, 3.17, starts on kernels before 6.13 only, whose vDSO is as it was.
	criu := "criu check"
	if testbed.Chosen() == testbed.Bookworm {
		criu = "criu check || criu check 2>&1 | grep 'Unexpected rt vDSO area bounds'"
	}
	const cgroupProgram = `
set -e
mkdir /sys/fs/cgroup/selftest
bpftool cgroup tree /sys/fs/cgroup >/dev/null
mount -t bpf bpf /sys/fs/bpf
rmdir /sys/fs/cgroup/selftest`
	for _, c := range []struct{ name, script, want string }{
		{"systemd is process 1", "cat /proc/1/comm", "systemd"},
		{"a name and an address of its own", "hostname; ip -o -4 addr show eth0", "left"},
		{"the other node answers by name", "ping -q -c1 -W2 right", "1 received"},
		{"sshd runs", "systemctl is-active ssh", "active"},
		{"units do not fail", "systemctl --failed --no-legend | wc -l", "0"},
		{"cgroup2 alone", "stat -f -c %T /sys/fs/cgroup", "cgroup2fs"},
		{"cgroups can be made, bpffs mounted", cgroupProgram, ""},
		{"mount namespaces", "unshare -m sh -c 'mount -t tmpfs none /mnt && echo mounted'; findmnt /mnt || echo private", "private"},
		{"/dev/fuse opens", "exec 3<>/dev/fuse && echo open", "open"},
		{"CRIU finds what it needs", criu, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := left.Output(ctx, "/bin/sh", "-c", c.script)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("got %q, want %q in it", out, c.want)
			}
		})
	}

	t.Run("ssh between nodes opens a login session", func(t *testing.T) {
		must(t, left.Run(ctx, "/bin/sh", "-ec", `useradd -m -s /bin/bash ann
			runuser -u ann -- ssh-keygen -q -t ed25519 -N '' -f /home/ann/.ssh/id_ed25519`))
		key, err := left.ReadFile(ctx, "/home/ann/.ssh/id_ed25519.pub")
		must(t, err)
		must(t, right.Run(ctx, "useradd", "-m", "-s", "/bin/bash", "ann"))
		must(t, right.Push(ctx, strings.NewReader(key), "/home/ann/.ssh/authorized_keys", 0o644))
		shell, err := left.Shell(ctx, "su", "-l", "ann")
		must(t, err)
		defer shell.Close()
		_, err = shell.Enter(ctx, "ssh -o StrictHostKeyChecking=no right")
		must(t, err)
		for command, want := range map[string]string{
			"hostname":          "right",
			"tty":               "/dev/pts/",
			"(exit 7); echo $?": "7",
			"loginctl --no-legend show-session $XDG_SESSION_ID -p Class": "Class=user",
			"systemctl --user is-system-running --wait":                  "running",
			"busctl --user --no-legend list | head -1":                   ":1.",
			"sleep 100 & jobs":                      "Running",
			"cat /proc/self/cgroup | cut -d/ -f2-4": "user.slice/user-",
		} {
			got, err := shell.Do(ctx, command)
			must(t, err)
			if !strings.Contains(got.Output, want) {
				t.Errorf("%s: got %q (status %d), want %q in it", command, got.Output, got.Status, want)
			}
		}
		got, err := shell.Do(ctx, "exit 3")
		must(t, err)
		if got.Status != 3 {
			t.Errorf("after the remote exit 3: %+v", got)
		}
	})

	t.Run("a killed main process", func(t *testing.T) {
		pid, err := right.KillMain(ctx, "dbus.service")
		must(t, err)
		if pid == "" {
			t.Fatal("no process was killed")
		}
		// A killed process is gone when its parent has taken note.
		for right.Run(ctx, "test", "-d", "/proc/"+pid) == nil {
			if ctx.Err() != nil {
				t.Fatalf("process %q is alive", pid)
			}
		}
	})

	t.Run("another process cannot take a grid in use, but can attach", func(t *testing.T) {
		again, err := testbed.Attach(ctx, testbed.Config{Name: "selftest"})
		must(t, err)
		out, err := again.Node("right").Output(ctx, "hostname")
		must(t, err)
		if strings.TrimSpace(out) != "right" {
			t.Errorf("got %q", out)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []testbed.Config{
		{},
		{Name: "Upper", Nodes: []string{"a"}},
		{Name: "../x", Nodes: []string{"a"}},
		{Name: "ok"},
		{Name: "ok", Nodes: []string{"a", "a"}},
		{Name: "ok", Nodes: []string{"a b"}},
	} {
		if _, err := testbed.Start(t.Context(), cfg); err == nil {
			t.Errorf("%+v started", cfg)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func checkNothingLeft(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	namespaces, err := exec.Command("ip", "netns", "list").Output()
	must(t, err)
	cgroups, err := exec.Command("find", "/sys/fs/cgroup", "-path", "*/xtreemos-testbed/selftest*").Output()
	must(t, err)
	processes, err := exec.Command("pgrep", "-a", "-r", "S,R,D", "-f", "machine=selftest-").Output()
	if exit, ok := err.(*exec.ExitError); err != nil && !(ok && exit.ExitCode() == 1) {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"a mount": string(mounts), "a namespace": string(namespaces),
		"a cgroup": string(cgroups), "a process": string(processes)} {
		if strings.Contains(text, "selftest") {
			t.Errorf("%s is left:\n%s", what, text)
		}
	}
	if _, err := os.Stat("/var/lib/xtreemos-testbed/selftest"); err == nil {
		t.Error("the grid's directory is left")
	}
}
