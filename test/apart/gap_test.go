package apart

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// barred are what carol may not do to alice's session at level C and, from "|"
// on, at level A only.
const barred = "TCP: 127.0.0.1,TCP: ::1,UDP: sendto,io_uring: TCP,/tmp: read,POSIX queue,/proc: PID|,abstract: stream,abstract: datagram,getsid,sched_getaffinity"

// siege has xos-node killed in every way that it may end, so often as its
// argument says; what comes next finds another policy of the site's, in which
// others share more. Of four rounds, one kills it when it is ready; one does, and
// its successor some time while that starts; one replaces its program and restarts
// it, or, where there is a package, one in five of these installs that; one stops it. It
// prints what it did.
const siege = `
ready() {
	for i in $(seq 300); do
		pid=$(systemctl show -P MainPID xos-node)
		[ "${pid:-0}" != 0 ] && [ "$pid" != "$1" ] && xos guard status >/dev/null 2>&1 && return
		sleep 0.3
	done
	echo "xos-node does not come back"; exit 1
}
fresh() {
	for i in $(seq 9000); do
		pid=$(systemctl show -P MainPID xos-node)
		[ "${pid:-0}" != 0 ] && [ "$pid" != "$1" ] && return
		sleep 0.01
	done
	echo "systemd does not start xos-node again"; exit 1
}
kills=0 starting=0 upgrades=0 packages=0 stops=0
ready 0
for round in $(seq "$FIRST" $((FIRST + ROUNDS - 1))); do
	printf 'share = ["network"]\n[vo.physics.share]\nnetwork = ["law"]\n[vo.law.share]\nnetwork = ["physics"]\n' >/etc/xos/apart.new
	[ $((round % 2)) = 0 ] && : >/etc/xos/apart.new
	mv /etc/xos/apart.new /etc/xos/apart.toml
	was=$pid
	case $((round % 4)) in
	1) kill -9 $was; kills=$((kills + 1)) ;;
	2) kill -9 $was; fresh $was; was=$pid; sleep 0.0$((RANDOM % 10)); sleep 0.$((RANDOM % 4)); kill -9 $was 2>/dev/null; kills=$((kills + 2)); starting=$((starting + 1)) ;;
	3) if [ -e "$DEB" ] && [ $((round % 20)) = 3 ]; then
		dpkg -i --force-confold "$DEB" >/root/apart.log 2>&1 || { cat /root/apart.log; exit 1; }
		packages=$((packages + 1))
	   else
		cp /usr/sbin/xos-node /usr/sbin/xos-node.new; printf x >>/usr/sbin/xos-node.new; mv /usr/sbin/xos-node.new /usr/sbin/xos-node
		systemctl restart xos-node; upgrades=$((upgrades + 1))
	   fi ;;
	0) systemctl stop xos-node; sleep 0.2; systemctl start xos-node; stops=$((stops + 1)) ;;
	esac
	ready $was
done
echo "DID $kills kills ($starting of them of one that had not started), $packages package installations, $upgrades other programs, $stops stops, $ROUNDS policies"
`

// TestRootNoGapWhenTheDaemonDies: carol tries without pause while xos-node is
// killed, upgraded, stopped, and its policy is another; nothing works for a moment.
// XOS_KILLS says how many rounds, XOS_KILLS_FROM which is the first.
func TestRootNoGapWhenTheDaemonDies(t *testing.T) {
	ctx := needGrid(t)
	install(ctx, t)
	rounds, first := 4, 1
	for name, n := range map[string]*int{"XOS_KILLS": &rounds, "XOS_KILLS_FROM": &first} {
		if set, err := strconv.Atoi(os.Getenv(name)); err == nil {
			*n = set
		}
	}
	names, atLevelA, _ := strings.Cut(barred, "|")
	if levelOf1(ctx, t) == "A" {
		names += atLevelA
	}
	const unsettle = "sed -i '/^isolation = /d' /etc/xos/node.toml; rm -f /etc/xos/apart.toml; cp /root/xos-node.kept /usr/sbin/xos-node.new && mv /usr/sbin/xos-node.new /usr/sbin/xos-node; systemctl restart xos-node"
	on1(ctx, t, "root", "cp -p /usr/sbin/xos-node /root/xos-node.kept; : >/etc/xos/apart.toml; sed -i '1i isolation = \"/etc/xos/apart.toml\"' /etc/xos/node.toml")
	defer on1(context.WithoutCancel(ctx), t, "root", unsettle)
	v := victim(ctx, t, fmt.Sprint("mg", time.Now().UnixNano()%1e8), false)
	type answer struct {
		out    string
		status int
		err    error
	}
	life, cancel := context.WithTimeout(ctx, 8*time.Minute+time.Duration(rounds)*time.Minute)
	defer cancel()
	began := make(chan answer, 1)
	go func() {
		out, status, err := story.Run(life, node("client"), "carol",
			ssh("carol@chemistry", "", "nice -n 5 "+prober+" besiege \""+names+"\" "+v.String()+" /tmp/besieging"))
		began <- answer{out, status, err}
	}()
	// Her /tmp is her VO's.
	const find = "ls -d /tmp/xos-private-*/besieging /tmp/xos-private-*/*/besieging 2>/dev/null | head -1"
	place := on1(ctx, t, "root", "for i in $(seq 600); do p=$("+find+"); [ -n \"$p\" ] && echo $p && break; sleep 0.1; done")
	if place == "" {
		t.Fatal("carol does not begin")
	}
	deb := ""
	if debs, _ := filepath.Glob(filepath.Join(os.Getenv("XOS_DEBS"), "xtreemos-node_*.deb")); !here && len(debs) == 1 {
		deb = "/root/apart.deb"
		if err := grid.Node("node1").PushFile(ctx, debs[0], deb); err != nil {
			t.Fatal(err)
		}
	}
	out, status, err := story.Run(life, node("node1"), "root", "DEB="+deb+" FIRST="+strconv.Itoa(first)+" ROUNDS="+strconv.Itoa(rounds)+" exec bash -c '"+strings.ReplaceAll(siege, "'", `'\''`)+"'")
	_, did, found := strings.Cut(out, "DID ")
	if err != nil || status != 0 || !found {
		t.Errorf("the siege: status %d (%v): %s", status, err, out)
	}
	on1(ctx, t, "root", "rm "+place)
	a := <-began
	var got struct {
		Tries  int
		Worked map[string]int
	}
	start := strings.Index(a.out, "{")
	if a.err != nil || a.status != 0 || start < 0 || json.Unmarshal([]byte(a.out[start:]), &got) != nil {
		t.Fatalf("carol: status %d (%v)\n%s", a.status, a.err, a.out)
	}
	if got.Tries < 100 || len(got.Worked) != 0 {
		t.Errorf("of %d tries these worked: %v", got.Tries, got.Worked)
	}
	t.Logf("%d tries beside %s", got.Tries, did)
}
