package story

import (
	"context"
	"fmt"
	"strings"
)

// Inventory lists what a machine has: files, users, groups, units, mounts,
// processes of daemons, namespaces. What the package manager and the system's
// own bookkeeping leave behind is not counted.
func Inventory(ctx context.Context, n Machine) ([]string, error) {
	out, status, err := Run(ctx, n, "root", `
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache \
	-o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \) -prune -o -print | sort | sed 's/^/file /'
find /run -path '*xos*' | sed 's/^/run /'
find /var/lib/systemd /var/log /var/cache -name '*xos*' -o -name '*xtreemos*' | sed 's/^/state /'
cut -d: -f1 /etc/passwd | sed 's/^/user /'
cut -d: -f1 /etc/group | sed 's/^/group /'
cat /etc/nsswitch.conf /etc/pam.d/common-* | sed 's/^/config /'
systemctl list-unit-files --no-legend --no-pager 'xos*' | sed 's/^/unit /'
awk '{print "mount " $5}' /proc/self/mountinfo | grep -E 'xos'
ps -e -o comm= | grep -E '^(xos|mount.xosfs)' | sed 's/^/process /'
true`)
	if err != nil || status != 0 {
		return nil, fmt.Errorf("listing what is there: status %d (%v)\n%s", status, err, out)
	}
	var list []string
	for line := range strings.Lines(out) {
		// sshd and ssh-keygen's own, and root's known hosts.
		if !strings.Contains(line, "/root/.ssh/known_hosts") && !strings.Contains(line, "/home/ada/") && !strings.Contains(line, "/root/.bash") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list, nil
}
