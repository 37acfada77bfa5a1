package userdb_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/need"
	"github.com/xtreemos/xos/test/testbed"
)

// inDebian runs the commands that it reads, one a line, in the testbed's Debian:
// with systemd-userdbd, with the test's directory as /run/systemd/userdb, and in
// namespaces of its own, with which all of it ends. After each it prints a line
// "= STATUS". Arguments: the root, the directory.
const inDebian = `set -e
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/run/systemd/userdb" "$1/run/systemd/system"
mount --bind "$2" "$1/run/systemd/userdb"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
chroot "$1" /usr/lib/systemd/systemd-userdbd </dev/null &
set +e
while read -r command; do
	chroot "$1" sh -c "$command" </dev/null 2>&1
	echo "= $?"
done
`

// TestRootUserdbctl asks as administrators do: through userdbctl, systemd-userdbd,
// varlinkctl and nss-systemd of the Debian that the nodes run.
func TestRootUserdbctl(t *testing.T) {
	s := newStage(t)
	need.Command(t, "debootstrap")
	base, err := testbed.Chosen().Base(t.Context(), slog.New(slog.DiscardHandler), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	direct := "/run/systemd/userdb/io.xtreemos.UserDatabase"
	guest := "setpriv --reuid=1234 --regid=1234 --clear-groups "
	her := fmt.Sprintf("setpriv --reuid=%d --regid=%[1]d --clear-groups ", alice)
	steps := []struct {
		command string
		status  int
		wants   []string
		lacks   string
	}{
		{"until userdbctl services | grep -q Multiplexer; do sleep 0.1; done; userdbctl services", 0, []string{"io.xtreemos.UserDatabase", "yes"}, ""},
		{"userdbctl user alice@physics", 0, []string{"User name: alice@physics", "Disposition: regular", fmt.Sprint("UID: ", alice),
			"/home/xos/physics/alice", "/bin/bash", "Service: io.xtreemos.UserDatabase"}, "incomplete"},
		{fmt.Sprint("userdbctl user ", alice), 0, []string{"alice@physics"}, ""},
		{"userdbctl -j user alice@physics carol@chemistry", 0, []string{`"userName" : "alice@physics"`, `"userName" : "carol@chemistry"`}, "privileged"},
		{"userdbctl --with-nss=no user alice@physics", 0, []string{"Service: io.xtreemos.UserDatabase"}, ""},
		{"userdbctl --with-nss=no user dora@physics", 1, []string{"dora@physics"}, "UID:"},
		{"userdbctl group physics", 0, []string{"Group name: physics", "Service: io.xtreemos.UserDatabase", "alice@physics", "bob@physics"}, ""},
		{"userdbctl group alice@physics", 0, []string{fmt.Sprint("GID: ", alice)}, ""},
		{"userdbctl groups-of-user alice@physics", 0, []string{"physics"}, "higgs"},
		{"userdbctl users-in-group physics", 0, []string{"alice@physics", "bob@physics"}, ""},
		{"userdbctl --no-legend user", 0, []string{"root"}, "alice@physics"},
		{"userdbctl --no-legend group", 0, []string{"daemon"}, "physics"},
		{"userdbctl user root", 0, []string{"User name: root"}, ""},
		// The Multiplexer is root, whoever asks it.
		{guest + "userdbctl user alice@physics", 0, []string{"alice@physics"}, ""},
		{guest + "userdbctl --with-nss=no user alice@physics", 1, nil, "UID:"},
		{her + "userdbctl --with-nss=no user bob@physics", 0, []string{"bob@physics"}, ""},
		{her + "userdbctl --with-nss=no user carol@chemistry", 1, nil, "UID:"},
		{"getent passwd alice@physics", 0, []string{fmt.Sprintf("alice@physics:x:%d:%[1]d:alice@physics:/home/xos/physics/alice:/bin/bash", alice)}, ""},
		{fmt.Sprint("getent group ", alice), 0, []string{"alice@physics:x:"}, ""},
		{"id -Gn alice@physics", 0, []string{"physics"}, "higgs"},
		{guest + "getent passwd alice@physics", 2, nil, "alice"},
		{"getent passwd nosuch root", 2, []string{"root:x:0:0:"}, ""},
		{"getent passwd root", 0, []string{"root:x:0:0:"}, ""},
		{"getent group nosuch", 2, nil, ""},
		// What has no password has one that never matches.
		{"getent shadow alice@physics", 0, []string{"alice@physics:!*:"}, ""},
		{"varlinkctl info " + direct, 0, []string{"XtreemOS", "xos-userdb", "1.2", "io.systemd.UserDatabase"}, ""},
		{"varlinkctl introspect " + direct + " io.systemd.UserDatabase", 0, []string{"method GetMemberships", "error EnumerationNotSupported"}, ""},
		{"varlinkctl introspect " + direct + " org.varlink.service", 0, []string{"method GetInfo"}, ""},
		{"varlinkctl call --more " + direct + ` io.systemd.UserDatabase.GetMemberships '{"groupName":"physics","service":"io.xtreemos.UserDatabase"}'`, 0, []string{"alice@physics", "bob@physics"}, ""},
		{"varlinkctl call " + direct + ` io.systemd.UserDatabase.GetUserRecord '{"service":"io.xtreemos.UserDatabase"}'`, 1, []string{"EnumerationNotSupported"}, ""},
	}
	if testbed.Chosen() == testbed.Bookworm { // its systemd, 252, has no varlinkctl
		kept := steps[:0]
		for _, step := range steps {
			if !strings.HasPrefix(step.command, "varlinkctl") {
				kept = append(kept, step)
			}
		}
		steps = kept
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "sh", "-c", inDebian, "sh", base, filepath.Dir(s.socket))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var commands, out bytes.Buffer
	for _, step := range steps {
		commands.WriteString(step.command + "\n")
	}
	cmd.Stdin, cmd.Stdout = &commands, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	answers := out.String()
	for _, step := range steps {
		end := fmt.Sprintf("= %d\n", step.status)
		got, rest, _ := strings.Cut(answers, "\n= ")
		if strings.HasPrefix(answers, "= ") {
			got, rest = "", answers[2:]
		}
		status, rest, ok := strings.Cut(rest, "\n")
		if answers = rest; !ok || "= "+status+"\n" != end {
			t.Errorf("%s: status %s, want %d\n%s", step.command, status, step.status, got)
		}
		for _, want := range step.wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: lacks %q\n%s", step.command, want, got)
			}
		}
		if step.lacks != "" && strings.Contains(got, step.lacks) {
			t.Errorf("%s: has %q\n%s", step.command, step.lacks, got)
		}
	}
}
