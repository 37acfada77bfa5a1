package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// contain has shadow map a user's subordinate ids into a namespace of hers, as
// rootless engines do, and runs two things there as its user 33: one that never
// stands still, and one that stays.
const contain = `set -e
dir=$(mktemp -d /tmp/contain.XXXXXX)
mkfifo $dir/in $dir/out
unshare -U sh -c 'echo; read -r _; exec setpriv --reuid=33 --regid=33 --clear-groups sh -c "tail -f /dev/null & while sleep 0.1; do :; done"' <$dir/in >$dir/out &
exec 5>$dir/in 6<$dir/out
read -r _ <&6
newuidmap $! 0 $(id -u) 1 $(getsubids $(id -un) | sed 's/.* \([0-9]* [0-9]*\)$/1 \1/')
newgidmap $! 0 $(id -g) 1 $(getsubids -g $(id -un) | sed 's/.* \([0-9]* [0-9]*\)$/1 \1/')
echo >&5
wait $!
`

// TestRootContainers: what a user runs under subordinate ids, which newuidmap
// mapped for her, is frozen when her access is, in her slice and elsewhere, goes on
// when she is back, and is ended with her access.
func TestRootContainers(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "ines", "lab")
	run := func(ctx context.Context, at, command string) string {
		t.Helper()
		out, status, err := story.Run(ctx, g.Node(at), "root", command)
		if err != nil || status != 0 {
			t.Fatalf("%s: %d %v\n%s", command, status, err, out)
		}
		return strings.TrimSpace(out)
	}
	root := func(at, command string) string { t.Helper(); return run(ctx, at, command) }
	root("node1", `cp /etc/xos/node.toml /etc/nsswitch.conf /root/ && sed -i '1i subids = "2013265920-2147418111"' /etc/xos/node.toml &&
		echo 'subid: xos' >>/etc/nsswitch.conf && systemctl restart xos-node && cat >/usr/local/bin/contain <<'EOF'`+"\n"+contain+"EOF\nchmod 755 /usr/local/bin/contain")
	defer run(context.WithoutCancel(ctx), "node1", "cp /root/node.toml /etc/xos/ && cp /root/nsswitch.conf /etc/ && rm /usr/local/bin/contain && systemctl restart xos-node")

	ended := make(chan string, 1)
	go func() {
		out, status, err := story.Run(ctx, g.Node("client"), "ines", "ssh -o BatchMode=yes ines@lab@node1 sh -x /usr/local/bin/contain")
		ended <- fmt.Sprint(status, err, out)
	}()
	var first int
	ranges := regexp.MustCompile(`(?m)^subids:    (\d+)-\d+$`)
	stay := "0" // the process that stays
	eventually(t, 20*time.Second, "her container runs", func() error {
		select {
		case out := <-ended:
			t.Fatalf("it ended: %s", out)
		default:
		}
		out, _, err := story.Run(ctx, g.Node("node1"), "root", "xos uid show ines@lab")
		if m := ranges.FindStringSubmatch(out); err != nil || m == nil {
			return fmt.Errorf("%v %s", err, out)
		} else if first, err = strconv.Atoi(m[1]); err != nil {
			return err
		}
		stay, _, err = story.Run(ctx, g.Node("node1"), "root", fmt.Sprint("pgrep -x -u ", first+32, " tail"))
		stay = strings.TrimSpace(stay)
		if err != nil || stay == "" {
			return fmt.Errorf("no process of %d: %v", first+32, err)
		}
		return nil
	})
	if out := root("node1", fmt.Sprint("xos uid show ", first+32)); !strings.Contains(out, "account:   ines@lab") {
		t.Errorf("a process's number is not known for hers: %s", out)
	}
	// What an engine left in a service's cgroup is not in her slice.
	root("node1", "echo "+stay+" >/sys/fs/cgroup/system.slice/cron.service/cgroup.procs")
	all := fmt.Sprintf(`ps -eo uid=,pid=,stat= | awk '$1 >= %d && $1 < %d {print $2, $3}'`, first, first+65536)
	stopped := func() bool { return strings.HasPrefix(root("node1", "ps -o stat= -p "+stay), "T") }
	standing := func() bool { // three times as long as its sleeps, nothing of it comes and goes
		pids := func() string { return root("node1", all+" | cut -d' ' -f1") }
		before := pids()
		time.Sleep(300 * time.Millisecond)
		return pids() == before
	}
	frozen := func(want bool) {
		t.Helper()
		eventually(t, within, fmt.Sprint("frozen: ", want), func() error {
			if stopped() != want || standing() != want {
				return fmt.Errorf("stopped elsewhere: %v, in her slice: %s", stopped(), root("node1", all))
			}
			return nil
		})
	}
	frozen(false)
	root("core", "xos vo member remove lab ines --running freeze")
	frozen(true)
	root("core", "xos vo member add lab ines | grep 'removal is undone'")
	frozen(false)
	root("core", "xos vo member remove lab ines --running freeze")
	frozen(true)
	root("core", "xos ban add ines --reason 'test'")
	defer run(context.WithoutCancel(ctx), "core", "xos ban remove ines")
	eventually(t, within, "nothing of it is left", func() error {
		if out := root("node1", all); out != "" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	select {
	case <-ended:
	case <-time.After(within):
		t.Error("her session goes on")
	}
}
