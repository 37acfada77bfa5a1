package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/xtreemos/xos/test/testbed"
)

// clone compares cloning a repository on a node's disk into the home with
// cloning it into another directory of that disk. Both copy the objects: links
// would be had on the disk alone. The clones stay, and must be alike.
func clone(ctx context.Context, s *stage) ([]figure, error) {
	if _, err := s.Node("client").Input(ctx, history(), testbed.As("alice", ssh+" "+account+"@node1 '"+
		"rm -rf "+disk+"/source && git init -q --bare -b main "+disk+"/source && git -C "+disk+"/source fast-import --quiet'")...); err != nil {
		return nil, err
	}
	out, err := s.as(ctx, "node1", clock+fmt.Sprintf(`
into() { at=$(mktemp -d $1/XXXXXX); now; a=$now; git clone -q --no-hardlinks %[1]s/source $at </dev/null; now; took=$((now-a)); }
for round in {1..3}; do
	into $PWD; ours=$took; into %[1]s; echo $ours $took
	into %[1]s; theirs=$took other=$at; into $PWD; echo $took $theirs
done
diff -r $other $at -x .git >&2
git -C $at fsck --strict >&2`, disk))
	if err != nil {
		return nil, err
	}
	t, err := columns(out, 2)
	if err != nil {
		return nil, err
	}
	return []figure{ratio("git_clone_ratio", scaled(t[0], 1e-3), scaled(t[1], 1e-3), "ms")}, nil
}

const (
	historyFiles   = 400
	historyCommits = 300
)

// history is the input of git fast-import for a repository that is the same
// each time: files of about 4 KiB in 20 directories, a few of them changed by
// each commit.
func history() *bytes.Buffer {
	random := rand.New(rand.NewPCG(1865, 1871))
	var b bytes.Buffer
	file := func(i int) {
		var text strings.Builder
		for range 64 + random.IntN(64) {
			fmt.Fprintf(&text, "%x %d\n", random.Uint64(), random.Uint64())
		}
		fmt.Fprintf(&b, "M 100644 inline d%02d/f%03d.txt\ndata %d\n%s\n", i%20, i, text.Len(), text.String())
	}
	for c := range historyCommits {
		message := fmt.Sprintf("commit %d", c)
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata %d\n%s\n", 1700000000+60*c, len(message), message)
		if c == 0 {
			for i := range historyFiles {
				file(i)
			}
			continue
		}
		for range 5 {
			file(random.IntN(historyFiles))
		}
	}
	return &b
}
