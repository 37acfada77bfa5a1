package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/xtreemos/xos/test/testbed"
)

// login compares ssh of a grid user with ssh of a local one with a plain key,
// between the same two machines. sshd makes an attempt take a multiple of some
// milliseconds, which it draws for each name when it starts: it is started anew
// for each round.
func login(ctx context.Context, s *stage) ([]figure, error) {
	var t [2][]float64
	for range 12 {
		if err := s.Node("node1").Run(ctx, "systemctl", "reload", "ssh"); err != nil {
			return nil, err
		}
		out, err := s.Node("client").Output(ctx, testbed.As("alice", clock+fmt.Sprintf(`
ours() { now; a=$now; %[1]s %[2]s@node1 true </dev/null || exit; now; ours=$((now-a)); }
theirs() { now; a=$now; %[1]s %[3]s@node1 true </dev/null || exit; now; theirs=$((now-a)); }
theirs; ours # the new sshd's first
ours; theirs; echo $ours $theirs
theirs; ours; echo $ours $theirs`, ssh, account, local))...)
		if err != nil {
			return nil, err
		}
		round, err := columns(out, 2)
		if err != nil {
			return nil, err
		}
		for i := range t {
			t[i] = append(t[i], round[i]...)
		}
	}
	return []figure{ratio("login_ratio", scaled(t[0], 1e-3), scaled(t[1], 1e-3), "ms")}, nil
}

// coldLogin is login where neither was there: the grid user's home is not mounted
// and the machine holds no credential of hers, and systemd starts a manager for
// either. Between logins all that is taken away.
func coldLogin(ctx context.Context, s *stage) (figures []figure, err error) {
	const linger = `linger = "1s"`
	node := s.Node("node1")
	s.close()
	defer func() { err = errors.Join(err, s.hold(ctx)) }()
	if err := node.Run(ctx, "sh", "-ec", "sed -i '1i "+linger+"' /etc/xos/node.toml; systemctl restart xos-node"); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, node.Run(ctx, "sh", "-ec", "sed -i '1{/^linger/d}' /etc/xos/node.toml; systemctl restart xos-node"))
	}()
	var grid, plain []float64
	for round := range 9 {
		who := []string{account, local}
		if round%2 == 1 {
			slices.Reverse(who)
		}
		for _, user := range who {
			if err := node.Run(ctx, "sh", "-ec", chill); err != nil {
				return nil, fmt.Errorf("ending all sessions: %w", err)
			}
			out, err := s.Node("client").Output(ctx, testbed.As("alice", clock+"now; a=$now; "+ssh+" "+user+"@node1 true </dev/null; now; echo $((now-a))")...)
			if err != nil {
				return nil, err
			}
			t, err := columns(out, 1)
			if err != nil {
				return nil, err
			}
			if user == local {
				plain = append(plain, t[0]...)
			} else if err := node.Run(ctx, "findmnt", "-t", "fuse.xosfs", home); err != nil {
				return nil, fmt.Errorf("the home is not mounted: %w", err)
			} else {
				grid = append(grid, t[0]...)
			}
		}
	}
	// The first of each also reads programs from the disk.
	return []figure{ratio("login_cold_ratio", scaled(grid[1:], 1e-3), scaled(plain[1:], 1e-3), "ms")}, nil
}

// chill ends the users' managers, and waits until nothing is left of a login.
const chill = `
for user in ` + account + ` ` + local + `; do systemctl stop user@$(id -u $user).service; done
for i in $(seq 300); do
	! findmnt ` + home + ` >/dev/null && [ ! -e /run/xos/cred/$(id -u ` + account + `) ] && ! loginctl list-sessions --no-legend | grep -q -e ` + account + ` -e ` + local + ` && exit 0
	sleep 0.1
done
xos session list
exit 1`

// submit is from the start of xsub to the first line that the job printed.
func submit(ctx context.Context, s *stage) ([]figure, error) {
	out, err := s.as(ctx, "node1", clock+`
for round in {1..20}; do
	now; a=$now
	exec 3< <(exec xsub -- echo started </dev/null)
	read -r line <&3
	now; b=$now
	[ "$line" = started ]
	wait $!
	exec 3<&-
	echo $((b-a))
done`)
	if err != nil {
		return nil, err
	}
	t, err := columns(out, 1)
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("submit_to_start_ms", "ms", scaled(t[0], 1e-3), "on any node, from a shell on node1")}, nil
}
