package main

import (
	"context"
	"fmt"

	"github.com/xtreemos/xos/test/testbed"
)

// login compares ssh of a grid user with ssh of a local one with a plain key,
// between the same two machines.
func login(ctx context.Context, s *stage) ([]figure, error) {
	out, err := s.Node("client").Output(ctx, testbed.As("alice", clock+fmt.Sprintf(`
ours() { now; a=$now; %[1]s %[2]s@node1 true </dev/null || exit; now; ours=$((now-a)); }
theirs() { now; a=$now; %[1]s %[3]s@node1 true </dev/null || exit; now; theirs=$((now-a)); }
for round in {1..8}; do
	ours; theirs; echo $ours $theirs
	theirs; ours; echo $ours $theirs
done`, ssh, account, local))...)
	if err != nil {
		return nil, err
	}
	t, err := columns(out, 2)
	if err != nil {
		return nil, err
	}
	return []figure{ratio("login_ratio", scaled(t[0], 1e-3), scaled(t[1], 1e-3), "ms")}, nil
}

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
