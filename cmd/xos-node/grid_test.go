package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/api/xos/v1/xosv1connect"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
)

// grid is what runs inside.
type grid struct {
	*testing.T
	dir   string
	vos   xosv1connect.VOsClient
	roots []*x509.Certificate
	node  *exec.Cmd
}

// reorder puts the groups of id's output into the order of their names.
func reorder(out string) string {
	m := regexp.MustCompile(`groups=(\S+)`).FindStringSubmatchIndex(out)
	if m == nil {
		return out
	}
	list := strings.Split(out[m[2]:m[3]], ",")
	name := func(s string) string { _, name, _ := strings.Cut(s, "("); return name }
	for i := range list {
		for j := i + 1; j < len(list); j++ {
			if name(list[j]) < name(list[i]) {
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	return out[:m[2]] + strings.Join(list, ",") + out[m[3]:]
}

func (g *grid) must(err error, what string) {
	g.Helper()
	if err != nil {
		g.Fatalf("%s: %v", what, err)
	}
}

func (g *grid) sh(script string) {
	g.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		g.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// prepare makes the machine: nothing outside the namespaces is written to.
func (g *grid) prepare() {
	g.sh(`mount --make-rprivate /
		ip link set lo up
		hostname node1
		mount -t tmpfs none /mnt
		for d in etc home var/lib usr/lib/` + multiarch() + `; do
			n=$(echo $d | tr / -); mkdir /mnt/$n /mnt/$n.work
			mount -t overlay -o lowerdir=/$d,upperdir=/mnt/$n,workdir=/mnt/$n.work none /$d
		done
		mount -t tmpfs -o mode=755 none /run
		mkdir -p /run/sshd /run/xos /etc/xos/trust /var/lib/xos
		mount -t bpf none /sys/fs/bpf
		mount --bind "$XOS_TEST_GROUP" "$XOS_TEST_CGROUP"
		cp ` + g.dir + `/libnss_xos.so.2 /usr/lib/` + multiarch() + `/
		cp ` + g.dir + `/pam_xos.so /usr/lib/` + multiarch() + `/security/
		cp ` + g.dir + `/xos-principals /usr/lib/` + multiarch() + `/
		printf 'passwd: files xos\ngroup: files xos\nshadow: files\nhosts: files dns\n' >/etc/nsswitch.conf
		printf '127.0.0.1 localhost core node1\n' >/etc/hosts
		printf 'name = "core"\naudit_journal = false\n' >/etc/xos/core.toml
		printf 'core = "localhost:7443"\nlinger = "2s"\naudit_journal = false\n' >/etc/xos/node.toml
		rm -f /etc/nologin
		ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/xos_test_host
		cat >/etc/pam.d/sshd <<END
auth     [success=done ignore=ignore default=die] pam_xos.so
auth     required pam_deny.so
account  required pam_xos.so
account  required pam_unix.so
session  required pam_xos.so
session  required pam_unix.so
END
		cat >/etc/ssh/xos_sshd_config <<END
Port 22
ListenAddress 127.0.0.1
HostKey /etc/ssh/xos_test_host
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
TrustedUserCAKeys /etc/xos/trust/ssh_user_ca.pub
AuthorizedPrincipalsCommand /usr/lib/` + multiarch() + `/xos-principals %u %t %k
AuthorizedPrincipalsCommandUser nobody
END`)
}

func multiarch() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-linux-gnu"
}

// daemon starts one of our programs.
func (g *grid) daemon(name string, args ...string) *exec.Cmd {
	g.Helper()
	cmd := exec.Command(filepath.Join(g.dir, name), args...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	g.must(cmd.Start(), name)
	g.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if g.Failed() {
			g.Logf("%s said:\n%s", name, log.String())
		}
	})
	return cmd
}

func (g *grid) sshd() {
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/xos_sshd_config")
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	g.must(cmd.Start(), "sshd")
	g.Cleanup(func() {
		cmd.Process.Kill()
		if g.Failed() {
			g.Logf("sshd said:\n%s", log.String())
		}
	})
	g.eventually("sshd listens", func() error {
		return exec.Command("sh", "-c", "ssh-keyscan -T 1 127.0.0.1 2>/dev/null | grep -q .").Run()
	})
}

func (g *grid) eventually(what string, f func() error) {
	g.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	g.Fatalf("never: %s: %v", what, err)
}

// join makes this machine node1 of the grid.
func (g *grid) join() {
	ctx := context.Background()
	machines := xosv1connect.NewMachinesClient(rpc.UnixClient("/run/xos/core.sock"), rpc.UnixBase, rpc.ClientOptions()...)
	token, err := machines.CreateJoinToken(ctx, connect.NewRequest(&xosv1.CreateJoinTokenRequest{Seconds: 60, Uses: 1}))
	g.must(err, "token")
	joined, err := machine.Join(ctx, machine.JoinConfig{Core: "localhost", Token: machine.Token(token.Msg.Token), Name: "node1", Service: vom.ServiceNode})
	g.must(err, "join")
	g.must(os.MkdirAll("/var/lib/xos/node", 0o700), "state")
	g.must(joined.Store("/var/lib/xos/node"), "credential")
	g.must(machine.StoreTrust(machine.TrustDir, joined.Trust), "trust")
	g.roots, err = machine.LoadRoots(machine.TrustDir)
	g.must(err, "roots")
}

func (g *grid) members() {
	ctx := context.Background()
	for _, vo := range []string{"physics", "chemistry"} {
		_, err := g.vos.CreateVO(ctx, connect.NewRequest(&xosv1.CreateVORequest{Name: vo}))
		g.must(err, "VO")
	}
	for _, user := range []string{"alice", "bob"} {
		_, err := g.vos.CreateUser(ctx, connect.NewRequest(&xosv1.CreateUserRequest{Name: user, Password: "secret of " + user}))
		g.must(err, "user")
		_, err = g.vos.AddMember(ctx, connect.NewRequest(&xosv1.AddMemberRequest{Vo: "physics", User: user, Groups: []string{"higgs"}}))
		g.must(err, "member")
	}
}

// issue gets a user's certificate and gives the path of her key.
func (g *grid) issue(account, password string) string {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	g.must(err, "key")
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: account}}, key)
	g.must(err, "request")
	c := xosv1connect.NewCredentialsClient(rpc.TLSClient(machine.CoreTLS(g.roots, nil)), "https://localhost:7443", rpc.ClientOptions()...)
	resp, err := c.Issue(context.Background(), connect.NewRequest(&xosv1.IssueRequest{Account: account, Password: password, Csr: csr}))
	g.must(err, "issue")
	path := filepath.Join("/root", strings.ReplaceAll(account, "@", "-"))
	path = filepath.Join("/mnt", filepath.Base(path))
	g.store(path, key, resp.Msg.SshCertificate)
	return path
}

func (g *grid) store(path string, key ed25519.PrivateKey, cert string) {
	block, err := ssh.MarshalPrivateKey(key, "")
	g.must(err, "key")
	g.must(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), "key")
	g.must(os.WriteFile(path+"-cert.pub", []byte(strings.TrimSpace(cert)+"\n"), 0o600), "certificate")
}

func sshArgs(key, user string) []string {
	return []string{"-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-i", key, "-l", user, "127.0.0.1"}
}

func (g *grid) ssh(key, user, command string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", append(sshArgs(key, user), command)...).CombinedOutput()
	return string(out), err
}

// shell logs in and gives what runs a line there and gives its first line of
// output; "" when the session is over.
func (g *grid) shell(key, user string) func(line string) string {
	cmd := exec.Command("ssh", append(sshArgs(key, user), "sh")...)
	in, err := cmd.StdinPipe()
	g.must(err, "ssh")
	out, err := cmd.StdoutPipe()
	g.must(err, "ssh")
	g.must(cmd.Start(), "ssh")
	g.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	lines := make(chan string)
	go func() {
		defer close(lines)
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			lines <- strings.TrimSpace(string(buf[:n]))
		}
	}()
	return func(line string) string {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			return ""
		}
		select {
		case l := <-lines:
			return l
		case <-time.After(10 * time.Second):
			return "(no answer)"
		}
	}
}

func (g *grid) rss() string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.node.Process.Pid))
	g.must(err, "status")
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmRSS:") {
			return strings.Join(strings.Fields(line)[1:], " ")
		}
	}
	return "?"
}
