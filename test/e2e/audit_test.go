package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/infra/audit"
	"github.com/xtreemos/xos/test/story"
)

// TestRootAudit: what was decided is in the machine's own log and in its
// journal, and by what the journal has it shows that the log was cut off.
func TestRootAudit(t *testing.T) {
	ctx, g := needGrid(t)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	newMember(ctx, t, g, "olga", "lab")
	node := g.Node("node1")
	root := func(command string, status int, texts ...string) string {
		t.Helper()
		out, got, err := story.Run(ctx, node, "root", command)
		if err != nil || got != status {
			t.Fatalf("%s: %d %v, want %d\n%s", command, got, err, status, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: no %q in %s", command, text, out)
			}
		}
		return out
	}
	want(ctx, t, g, "olga", "ssh olga@lab@node1 'xos audit list --node'", 77, "only root")
	root("xos audit list --node --vo lab --user olga", 0, "olga@lab", "login", "allowed")
	if out := root("xos audit list --node --vo elsewhere", 0); strings.Contains(out, "olga") {
		t.Errorf("another VO's: %s", out)
	}
	// What the kernel refused is there too, of her session and of her job.
	const socket = `perl -e "exit 7 unless socket(S, 2, 1, 262)"`
	want(ctx, t, g, "olga", "ssh olga@lab@node1 '"+socket+"'", 7)
	want(ctx, t, g, "olga", "ssh olga@lab@node1 'xsub --node node1 -- "+socket+"'", 7)
	eventually(t, 20*time.Second, "refusals are in the log", func() error {
		// One space or two, as the program was built.
		out := strings.ReplaceAll(root("xos audit list --node --vo lab --user olga --action isolation.network --json", 0), ":  ", ": ")
		if strings.Count(out, `"socket of IPv4 and mptcp"`) < 2 || strings.Count(out, `"executable": "`) < 2 || strings.Count(out, `"job": "xos-`) != 1 {
			return errors.New(out)
		}
		return nil
	})
	root("xos audit verify --node", 0, "whole: ")

	var noted string
	eventually(t, 20*time.Second, "the journal has her last entry", func() error {
		line, err := node.Output(ctx, "sh", "-c", "journalctl -q -o json -n 1 MESSAGE_ID="+audit.MessageID+" XOS_AUDIT_USER=olga XOS_AUDIT_VO=lab")
		if err != nil {
			return err
		}
		var e struct {
			Seq  string `json:"XOS_AUDIT_SEQ"`
			Hash string `json:"XOS_AUDIT_HASH"`
		}
		noted = ""
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return err
		}
		noted = e.Seq + ":" + e.Hash
		return nil
	})
	root("xos audit verify --node --noted "+noted, 0, "whole: ")
	root("xos audit verify --node --noted "+strings.Replace(noted, ":", ":0", 1)[:len(noted)], 1, "is not the one that was noted")

	const log = "/var/lib/xos/node/audit.log"
	number, _, _ := strings.Cut(noted, ":")
	root("systemctl stop xos-node && cp -a "+log+" /root/audit.saved && sed -i '/\"seq\":"+number+",/,$d' "+log+" && systemctl start xos-node", 0)
	defer root("systemctl stop xos-node && cp -a /root/audit.saved "+log+" && rm /root/audit.saved && systemctl start xos-node && xos audit verify --node", 0, "whole: ")
	root("xos audit verify --node", 0, "whole: ") // nothing in it tells
	root("xos audit verify --node --noted "+noted, 1, "broken: ")
}
