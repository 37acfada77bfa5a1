package main

import (
	"bytes"
	"strings"
	"testing"

	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func TestSubIDsAreShown(t *testing.T) {
	served := &xosv1.UID{Uid: 1879048200, Account: "alice@physics", State: "active", SubidFirst: 2013265920, SubidCount: 65536, SubidsServed: true}
	resting := &xosv1.UID{Uid: 1879048201, Account: "bob@physics", State: "quarantined", SubidFirst: 2147352576, SubidCount: 65536}
	none := &xosv1.UID{Uid: 1879048202, Account: "carol@chemistry", State: "active"}
	var list bytes.Buffer
	printUIDs(&list, &xosv1.ListUIDsResponse{Uids: []*xosv1.UID{served, resting, none}})
	for u, want := range map[*xosv1.UID]string{served: "2013265920-2013331455", resting: "2147352576-2147418111, not served", none: "-"} {
		var one bytes.Buffer
		printUID(&one, &xosv1.ShowUIDResponse{Uid: u})
		if !strings.Contains(one.String(), "\nsubids:    "+want+"\n") {
			t.Errorf("%s is shown as\n%s", u.Account, one.String())
		}
		for line := range strings.Lines(list.String()) {
			if strings.Contains(line, u.Account) && !strings.HasSuffix(strings.TrimSpace(line), "  "+want) {
				t.Errorf("listed as %q, want %s", line, want)
			}
		}
	}
}
