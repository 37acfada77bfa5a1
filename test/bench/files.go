package main

import (
	"context"
	"fmt"
)

// sequential writes files of 256 MiB in the home on one node, each through to
// storage, and reads them on the other, where nothing of them is cached.
func sequential(ctx context.Context, s *stage) ([]figure, error) {
	const megabytes = 256 << 20 / 1e6
	out, err := s.as(ctx, "node1", clock+fmt.Sprintf(`
source=/dev/shm/bench-source
head -c 256M /dev/urandom > $source
trap 'rm -f $source %[1]s/big' EXIT
timed() { now; a=$now; dd if=$source of=$1 bs=1M conv=fsync status=none; now; took=$((now-a)); }
for round in {1..3}; do
	timed big$round; ours=$took
	timed %[1]s/big; theirs=$took
	rm %[1]s/big
	echo $ours $theirs
done`, disk))
	if err != nil {
		return nil, err
	}
	wrote, err := columns(out, 2)
	if err != nil {
		return nil, err
	}
	out, err = s.as(ctx, "node2", clock+`
for round in {1..3}; do
	now; a=$now; dd if=big$round of=/dev/null bs=1M status=none; now
	echo $((now-a))
done
rm big?`)
	if err != nil {
		return nil, err
	}
	read, err := columns(out, 1)
	if err != nil {
		return nil, err
	}
	return []figure{
		newFigure("xfs_seq_write_MBps", "MB/s", rates(wrote[0], megabytes),
			fmt.Sprintf("fsync included; the node's own disk %v MB/s", short(median(rates(wrote[1], megabytes))))),
		newFigure("xfs_seq_read_MBps", "MB/s", rates(read[0], megabytes), "not cached on the reader, but in the memory of storage's host"),
	}, nil
}

// create makes many small files in one process. They stay: removing them takes
// as long.
func create(ctx context.Context, s *stage) ([]figure, error) {
	const files = 2000
	out, err := s.as(ctx, "node1", fmt.Sprintf(`
for round in {1..3}; do
	ours=$(bench-create $(mktemp -d $PWD/XXXXXX) %[2]d)
	theirs=$(bench-create $(mktemp -d %[1]s/XXXXXX) %[2]d)
	echo $ours $theirs
done`, disk, files))
	if err != nil {
		return nil, err
	}
	t, err := columns(out, 2)
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("xfs_create_per_s", "1/s", rates(t[0], files),
		fmt.Sprintf("%d files of 1 byte; the node's own disk %v", files, short(median(rates(t[1], files)))))}, nil
}
