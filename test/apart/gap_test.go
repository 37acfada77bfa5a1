package apart

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// barred are what carol may not do to alice's session at level C and, from "|"
// on, at level A only.
const barred = "TCP: 127.0.0.1,TCP: ::1,UDP: sendto,/tmp: read,POSIX queue,/proc: PID|,abstract: stream,abstract: datagram,getsid,sched_getaffinity"

// TestRootNoGapWhenTheDaemonDies: carol tries without pause while xos-node is
// killed, restarted and stopped; nothing works for a moment.
func TestRootNoGapWhenTheDaemonDies(t *testing.T) {
	ctx := needGrid(t)
	install(ctx, t)
	names, atLevelA, _ := strings.Cut(barred, "|")
	if levelOf1(ctx, t) == "A" {
		names += atLevelA
	}
	v := victim(ctx, t, fmt.Sprint("mg", time.Now().UnixNano()%1e8), false)
	type answer struct {
		out    string
		status int
		err    error
	}
	life, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	began := make(chan answer, 1)
	go func() {
		out, status, err := story.Run(life, node("client"), "carol",
			ssh("carol@chemistry", "", prober+" besiege \""+names+"\" "+v.String()+" /tmp/besieging"))
		began <- answer{out, status, err}
	}()
	// Her /tmp is her VO's.
	const find = "ls -d /tmp/xos-private-*/besieging /tmp/xos-private-*/*/besieging 2>/dev/null | head -1"
	place := on1(ctx, t, "root", "for i in $(seq 600); do p=$("+find+"); [ -n \"$p\" ] && echo $p && break; sleep 0.1; done")
	if place == "" {
		t.Fatal("carol does not begin")
	}
	const up = "for i in $(seq 900); do xos guard status >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1"
	for range 2 {
		on1(ctx, t, "root", "kill -9 $(systemctl show -P MainPID xos-node)")
		on1(ctx, t, "root", up)
	}
	on1(ctx, t, "root", "systemctl restart xos-node && "+up)
	on1(ctx, t, "root", "systemctl stop xos-node; sleep 1; systemctl reset-failed xos-node; systemctl start xos-node && "+up)
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
	t.Logf("%d tries while the daemon died twice, was restarted and stopped", got.Tries)
}
