package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/vom/credential/credtest"
)

// inside says that this process is the one in the test's own namespaces.
const inside = "XOS_TEST_INSIDE"

// TestRootLogin logs in by the machine's own ssh and sshd, with its NSS and PAM
// modules, xos-core and xos-node as they are installed, in namespaces of its
// own: network, mounts, processes and cgroups.
func TestRootLogin(t *testing.T) {
	need.Root(t)
	for _, c := range []string{"sshd", "ssh", "unshare", "ip", "cc"} {
		need.Command(t, c)
	}
	need.File(t, "/usr/include/security/pam_modules.h")
	if os.Getenv(inside) != "" {
		loginInside(t)
		return
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	build := func(name string, args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	build("xos-core", "go", "build", "-o", filepath.Join(dir, "xos-core"), "./cmd/xos-core")
	build("xos-principals", "sh", "principals_xos/build.sh", filepath.Join(dir, "xos-principals"))
	build("xos-node", "go", "build", "-o", filepath.Join(dir, "xos-node"), "./cmd/xos-node")
	build("libnss_xos", "sh", "nss_xos/build.sh", filepath.Join(dir, "libnss_xos.so.2"))
	build("pam_xos", "sh", "pam_xos/build.sh", filepath.Join(dir, "pam_xos.so"))
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "self"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	root := ""
	for _, r := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(r, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			root = r
		}
	}
	if root == "" {
		need.Missing(t, "cgroup version 2", "none is mounted")
	}
	group := filepath.Join(root, fmt.Sprintf("xos-login-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
			os.Remove(filepath.Join(group, "xos"))
			if os.Remove(group) == nil {
				return
			}
		}
		t.Errorf("cgroup %s is left", group)
	})
	fd, err := unix.Open(group, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "-n", "-p", "-C", "-u", "--fork", "--kill-child", "--mount-proc",
		filepath.Join(dir, "self"), "-test.run=^TestRootLogin$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+dir, "XOS_TEST_CGROUP="+root, "XOS_TEST_GROUP="+group)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	// Its mounts end with it; the directories of its sessions' /tmp do not.
	private := func() (dirs []string) {
		for _, at := range []string{"/tmp", "/var/tmp"} {
			found, _ := filepath.Glob(at + "/xos-private-*")
			dirs = append(dirs, found...)
		}
		return dirs
	}
	before := private()
	out, err := cmd.CombinedOutput()
	for _, d := range private() {
		if !slices.Contains(before, d) {
			os.RemoveAll(d)
		}
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func loginInside(t *testing.T) {
	g := &grid{T: t, dir: os.Getenv(inside)}
	g.prepare()
	ctx := context.Background()
	g.daemon("xos-core", "-config", "/etc/xos/core.toml")
	g.vos = xosv1connect.NewVOsClient(rpc.UnixClient("/run/xos/core.sock"), rpc.UnixBase, rpc.ClientOptions()...)
	g.eventually("the core answers", func() error {
		_, err := g.vos.ListVOs(ctx, connect.NewRequest(&xosv1.ListVOsRequest{}))
		return err
	})
	g.join()
	g.node = g.daemon("xos-node", "-config", "/etc/xos/node.toml")
	g.members()
	g.eventually("the node serves physics", func() error {
		_, err := os.Stat("/run/xos/nss/vo-physics.snap")
		return err
	})
	g.sshd()

	alice := g.issue("alice@physics", "secret of alice")
	out, err := g.ssh(alice, "alice@physics", "id; pwd; echo $XOS_VO; touch x; cat /proc/1/comm; exit 7")
	line := regexp.MustCompile(`uid=(\d+)\(alice@physics\) gid=(\d+)\(alice@physics\) groups=(\d+)\(alice@physics\),(\d+)\(physics\),(\d+)\(physics:higgs\)`)
	if ee, ok := err.(*exec.ExitError); !ok || ee.ExitCode() != 7 || !line.MatchString(reorder(out)) {
		t.Errorf("id said %q, %v", out, err)
	}
	// Without systemd there is no mount here: nothing can be written beside it.
	for _, want := range []string{"/home/xos/physics/alice\n", "\nphysics\n", "cannot touch 'x'", "/proc/1/comm: No such file"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	// Each of the others is refused, whatever it is.
	foreign, _ := os.CreateTemp(g.dir, "foreign")
	cert, key := credtest.New(t).SSHUser("alice@physics")
	g.store(foreign.Name(), key, string(ssh.MarshalAuthorizedKey(cert)))
	for name, user := range map[string]string{
		"another's principal": "bob@physics", "root of a VO": "root@physics", "another VO": "alice@chemistry",
		"no such VO": "alice@biology", "root": "root", "a colon": "ali:ce@physics", "a newline": "alice@physics\nroot",
		"long": strings.Repeat("a", 200) + "@physics", "unicode": "älice@physics",
	} {
		if out, err := g.ssh(alice, user, "id"); err == nil {
			t.Errorf("%s was let in: %s", name, out)
		}
	}
	if out, err := g.ssh(foreign.Name(), "alice@physics", "id"); err == nil {
		t.Errorf("a foreign authority's certificate was let in: %s", out)
	}
	// Each is on record with the host it came from, and those of one host are too
	// many some time.
	log := func() string {
		data, err := os.ReadFile(filepath.Join("/var/lib/xos/node", "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for i := 0; !strings.Contains(log(), audit.ActionRefused); i++ {
		if i > 20 {
			t.Fatalf("refusals without end have a line each:\n%s", log())
		}
		g.ssh(alice, fmt.Sprintf("u%d@physics", i), "id")
	}
	if n := strings.Count(log(), `"from":"127.0.0.1"`); n < 20 {
		t.Errorf("%d decisions say whence:\n%s", n, log())
	}
	// No certificate lets a local user in, and local names are still there.
	if out, err := exec.Command("id", "root").CombinedOutput(); err != nil {
		t.Errorf("id root: %s", out)
	}
	// kill -9 of the node disturbs no login, and the next one works again.
	shell := g.shell(alice, "alice@physics")
	if got := shell("echo $((40+2))"); got != "42" {
		t.Errorf("shell said %q", got)
	}
	g.node.Process.Kill()
	g.node.Wait()
	if got := shell("id -un"); got != "alice@physics" {
		t.Errorf("with the node dead, her shell says %q", got)
	}
	g.node = g.daemon("xos-node", "-config", "/etc/xos/node.toml")
	g.eventually("the node is back", func() error {
		if out, err := g.ssh(alice, "alice@physics", "id -u"); err != nil {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if got := shell("echo alive"); got != "alive" {
		t.Errorf("after the node's restart, her shell says %q", got)
	}
	t.Logf("resident memory of xos-node: %s", g.rss())
	var times []time.Duration
	for range 3 {
		begin := time.Now()
		if out, err := g.ssh(alice, "alice@physics", "true"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		times = append(times, time.Since(begin).Round(time.Millisecond))
	}
	t.Logf("logins took %v", times)

	// Removed from the VO, she is out within seconds, and never in again.
	begin := time.Now()
	if _, err := g.vos.RemoveMember(ctx, connect.NewRequest(&xosv1.RemoveMemberRequest{Vo: "physics", User: "alice", Reason: "left"})); err != nil {
		t.Fatal(err)
	}
	g.eventually("her session ends", func() error {
		if got := shell("echo still"); got == "still" {
			return fmt.Errorf("it lives")
		}
		return nil
	})
	t.Logf("her session ended after %v", time.Since(begin).Round(time.Millisecond))
	if out, err := g.ssh(alice, "alice@physics", "id"); err == nil {
		t.Errorf("removed, and let in: %s", out)
	}
}
