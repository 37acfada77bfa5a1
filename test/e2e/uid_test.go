package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
)

// TestRootUIDRetires: somebody leaves the VO, and leaves behind on a machine what
// people leave. Root learns of each thing where it is, what to do about it, and
// sees in the log what was looked at; nothing is given away while her quarantine
// lasts, and if she comes back she is who she was.
//
// What happens after the quarantine, an hour at least, is seen with the service's
// clock in session/service.
func TestRootUIDRetires(t *testing.T) {
	ctx, g := needGrid(t)
	newMember(ctx, t, g, "mona", "lab")
	node, core := g.Node("node1"), g.Node("core")
	root := func(command string, status int) string {
		t.Helper()
		out, got, err := story.Run(ctx, node, "root", command)
		if err != nil || got != status {
			t.Fatalf("%s: status %d, want %d (%v)\n%s", command, got, status, err, out)
		}
		return out
	}
	var uid string
	uids := regexp.MustCompile(`(?m)^uid=(\d+)$`)
	login := func(command string) {
		t.Helper()
		out, status := as(ctx, t, g, "mona", "ssh mona@lab@node1 'echo uid=$(id -u); "+command+"'")
		m := uids.FindStringSubmatch(out)
		if status != 0 || m == nil {
			t.Fatalf("%s: %d %s", command, status, out)
		}
		if uid != "" && uid != m[1] {
			t.Errorf("her uid was %s and is %s", uid, m[1])
		}
		uid = m[1]
	}
	// kinds are what she leaves, each with a part of where it is found.
	kinds := map[string]string{"file": "/mona-setuid", "crontab": "/var/spool/cron/crontabs/", "at job": "/var/spool/cron/atjobs/"}
	login("install -m 4755 /bin/true /var/tmp/mona-setuid && echo \"@daily true\" | crontab - && echo true | at -q a noon tomorrow 2>&1")
	for kind, plant := range map[string]struct{ at, command string }{
		"sysv ipc":      {"shm", "setpriv --reuid " + uid + " --regid 0 --clear-groups ipcmk -M 4096"},
		"posix mqueue":  {"/mona", "mkdir /run/mona-mq && mount -t mqueue none /run/mona-mq && touch /run/mona-mq/mona && chown " + uid + " /run/mona-mq/mona && umount /run/mona-mq && rmdir /run/mona-mq"},
		"systemd":       {"/var/lib/systemd/linger/", "loginctl enable-linger mona@lab"},
		"configuration": {"/etc/sudoers.d/", "echo '#" + uid + " ALL=(root) /bin/false' >/etc/sudoers.d/mona.test"},
	} {
		root(plant.command, 0)
		kinds[kind] = plant.at
	}
	// A process that has her uid for its file accesses alone is ended with hers.
	root("systemd-run -q --unit mona-left perl -e 'syscall(122, "+uid+"); sleep 600' && for i in $(seq 100); do grep -q '^Uid:.*"+uid+"' /proc/$(systemctl show -P MainPID mona-left)/status && exit; sleep 0.1; done; exit 1", 0)
	root("touch /dev/shm/mona && chown "+uid+" /dev/shm/mona && touch /var/tmp/mona-acl && setfacl -m u:"+uid+":r /var/tmp/mona-acl", 0)

	if out, status, err := story.Run(ctx, core, "root", "xos vo member remove lab mona"); err != nil || status != 0 {
		t.Fatalf("%d %v %s", status, err, out)
	}
	noSession(ctx, t, node, "mona@lab")
	eventually(t, 20*time.Second, "her access has ended", func() error {
		if out, status, err := story.Run(ctx, node, "root", "xos explain mona@lab"); err != nil || status != 77 {
			return fmt.Errorf("%d %v %s", status, err, out)
		}
		return nil
	})
	// Her access may have ended a moment before all of hers has, and a sweep looks
	// for what is out of use by then.
	eventually(t, 20*time.Second, "her uid is out of use", func() error {
		if out, status, err := story.Run(ctx, node, "root", "xos uid sweep"); err != nil || status != 1 {
			return fmt.Errorf("%d %v %s", status, err, out)
		}
		if out := root("xos uid show mona@lab", 0); strings.Contains(out, "state:     active") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	root("! systemctl -q is-active mona-left", 0)
	shown := root("xos uid show mona@lab", 0)
	for kind, at := range kinds {
		if !regexp.MustCompile(`(?m)^left: ` + kind + ` .*` + regexp.QuoteMeta(at) + `.*\n  \S`).MatchString(shown) {
			t.Errorf("%s at %s is not named with what to do about it", kind, at)
		}
	}
	for _, text := range []string{"uid:       " + uid, "state:     quarantined", "/dev/shm/mona", "/var/tmp/mona-acl", "ACL entry", "setuid"} {
		if !strings.Contains(shown, text) {
			t.Errorf("it says nothing of %s", text)
		}
	}
	if t.Failed() {
		t.Fatal(shown)
	}

	// What was left goes, by the advice given.
	root("ipcrm --all=shm; crontab -r -u mona@lab; for j in $(atq | cut -f1); do atrm $j; done; loginctl disable-linger mona@lab; rm /etc/sudoers.d/mona.test;"+
		"mkdir /run/mona-mq && mount -t mqueue none /run/mona-mq && rm /run/mona-mq/mona && umount /run/mona-mq && rmdir /run/mona-mq;"+
		"rm /dev/shm/mona /var/tmp/mona-acl $(xos uid show mona@lab | sed -n 's/^left: file \\(.*mona-setuid\\) (owner.*/\\1/p')", 0)
	eventually(t, 60*time.Second, "nothing is left", func() error {
		if _, _, err := story.Run(ctx, node, "root", "xos uid sweep"); err != nil { // others may have left something, too
			return err
		}
		if shown = root("xos uid show mona@lab", 0); strings.Contains(shown, "left:") {
			return fmt.Errorf("%s", shown)
		}
		return nil
	})
	if !strings.Contains(shown, "state:     quarantined") {
		t.Errorf("her uid does not rest: %s", shown)
	}

	// The log has what was looked at, and is root's.
	log := root("xos audit list --node --action uid.free --user mona", 0)
	for _, text := range []string{"traces are left", "nothing is left; it rests until"} {
		if !strings.Contains(log, text) {
			t.Errorf("the log has no %q: %s", text, log)
		}
	}
	detail := root("xos audit list --node --action uid.free --user mona --json", 0)
	for _, kind := range []string{"process", "sysv ipc", "posix mqueue", "keyring", "crontab", "at job", "configuration", "file"} {
		if !regexp.MustCompile(`looked.*`+kind+`: \d+ seen, 0 found`).MatchString(detail) || !strings.Contains(detail, uid) {
			t.Errorf("the log does not say how %s was looked at: %s", kind, detail)
		}
	}
	root("xos audit verify --node", 0)
	if out, status, err := story.Run(ctx, node, "root", "exec setpriv --reuid=nobody --regid=nogroup --clear-groups xos audit list --node"); err != nil || status != 77 {
		t.Errorf("nobody reads the log: %d %v %s", status, err, out)
	}

	// She comes back, and is who she was.
	if out, status, err := story.Run(ctx, core, "root", "xos vo member add lab mona"); err != nil || status != 0 {
		t.Fatalf("%d %v %s", status, err, out)
	}
	want(ctx, t, g, "mona", "echo long-enough | xos login mona@lab", 0, "logged in")
	login("true")
	if shown := root("xos uid show mona@lab", 0); !strings.Contains(shown, "state:     active") {
		t.Errorf("she is back: %s", shown)
	}
}
