// Guardcost measures what the guard's LSM programs cost the calls that they
// judge: run it as root on a machine whose kernel has them, with no xos-node. A
// grid user in a job's cgroup does what her VO allows her, on files of her own,
// and so does root outside of all VOs, with the programs attached and without:
// in the order none, all, all, none, and the medians are compared.
//
//	BENCH guard_stat_user_without 412 ns
//	BENCH guard_stat_user_ratio 1.04 x
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
)

// runs of each arm; each act is repeated for slice in one run.
const (
	blocks   = 8 // none all all none none all all none
	perBlock = 5
)

const user = session.FirstID + 4711

func main() {
	slice := flag.Duration("slice", 50*time.Millisecond, "how long one run of one act takes")
	worker := flag.Bool("worker", false, "only measure, and print JSON")
	nothing := flag.Bool("nothing", false, "end at once")
	flag.Parse()
	if *nothing {
		return
	}
	if *worker {
		check(work(*slice))
		return
	}
	dir, err := os.MkdirTemp("/tmp", "guardcost-")
	check(err)
	defer os.RemoveAll(dir)
	check(os.Chmod(dir, 0o755))
	root := "/sys/fs/cgroup"
	const subtree = "guardcost"
	cfg := guard.Config{CgroupRoot: root, Subtree: subtree, PinDir: filepath.Join(dir, "bpf/xos"), Run: filepath.Join(dir, "run"), Scratch: []string{}}
	check(os.MkdirAll(filepath.Dir(cfg.PinDir), 0o700))
	defer unix.Unmount(filepath.Dir(cfg.PinDir), unix.MNT_DETACH)
	all := map[string]map[bool][]float64{}
	account := xos.Account{User: "bench", VO: "bench"}
	for block := range blocks {
		on := block%4 == 1 || block%4 == 2
		g, err := guard.New(cfg, slog.New(slog.DiscardHandler))
		check(err)
		if level, features := g.Level(); level != nodeguard.LevelA {
			check(fmt.Errorf("this machine is at level %s: %+v", level, features))
		}
		check(g.Login(context.Background(), account, user))
		path, err := g.JobCgroup(context.Background(), account, "bench")
		check(err)
		if !on {
			pins, _ := filepath.Glob(filepath.Join(cfg.PinDir, "link_lsm_*"))
			for _, pin := range pins {
				check(os.Remove(pin))
			}
			time.Sleep(time.Second) // the kernel frees them when nobody runs them any more
		}
		for _, who := range []string{"user", "root"} {
			home := filepath.Join(dir, who)
			check(os.MkdirAll(home, 0o755))
			attr := &syscall.SysProcAttr{}
			if who == "user" {
				check(os.Chown(home, int(user), int(user)))
				fd, err := unix.Open(filepath.Join(root, path), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				check(err)
				defer unix.Close(fd)
				attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, UseCgroupFD: true, CgroupFD: fd}
			}
			measure(home, who, attr, *slice, on, all)
		}
		check(g.RemoveJob(context.Background(), account, "bench"))
		check(g.Close())
		fmt.Fprintf(os.Stderr, "block %d of %d\n", block+1, blocks)
	}
	os.Remove(filepath.Join(root, subtree, "vo-bench"))
	os.Remove(filepath.Join(root, subtree))
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		without, with := median(all[name][false]), median(all[name][true])
		fmt.Printf("BENCH guard_%s_without %.0f ns\nBENCH guard_%s_with %.0f ns\nBENCH guard_%s_ratio %.3f x\n", name, without, name, with, name, with/without)
	}
}

// measure runs the worker and keeps what it found.
func measure(home, who string, attr *syscall.SysProcAttr, slice time.Duration, on bool, all map[string]map[bool][]float64) {
	self := filepath.Join(filepath.Dir(home), "worker")
	if _, err := os.Stat(self); err != nil {
		data, err := os.ReadFile("/proc/self/exe")
		check(err)
		check(os.WriteFile(self, data, 0o755))
	}
	cmd := exec.Command(self, "-worker", "-slice", slice.String())
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = home, attr, os.Stderr
	out, err := cmd.Output()
	check(err)
	var got map[string][]float64
	check(json.Unmarshal(out, &got))
	for act, ns := range got {
		name := act + "_" + who
		if all[name] == nil {
			all[name] = map[bool][]float64{}
		}
		all[name][on] = append(all[name][on], ns...)
	}
}

// work measures each act and prints nanoseconds by act.
func work(slice time.Duration) error {
	acts, err := prepare()
	if err != nil {
		return err
	}
	found := map[string][]float64{}
	for range perBlock {
		for _, a := range acts {
			n, began := 0, time.Now()
			for time.Since(began) < slice {
				for range a.batch {
					if err := a.do(); err != nil {
						return fmt.Errorf("%s: %w", a.name, err)
					}
				}
				n += a.batch
			}
			found[a.name] = append(found[a.name], float64(time.Since(began).Nanoseconds())/float64(n))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// act is what is measured; batch of it are done between two looks at the clock.
type act struct {
	name  string
	batch int
	do    func() error
}

func prepare() ([]act, error) {
	file := "file-" + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		return nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	one := []byte{1}
	ping := func(out, in int) error {
		if _, err := unix.Write(out, one); err != nil {
			return err
		}
		_, err := unix.Read(in, one)
		return err
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	at := &unix.SockaddrUnix{Name: "@guardcost-" + strconv.Itoa(os.Getpid())}
	if err := unix.Bind(listener, at); err != nil {
		return nil, err
	}
	if err := unix.Listen(listener, 16); err != nil {
		return nil, err
	}
	pid := os.Getpid()
	return []act{
		{"open", 50, func() error {
			fd, err := unix.Open(file, unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}},
		{"stat", 50, func() error { var st unix.Stat_t; return unix.Stat(file, &st) }},
		{"kill", 100, func() error { return unix.Kill(pid, 0) }},
		{"pipe", 50, func() error { return ping(pipe[1], pipe[0]) }},
		{"datagram", 50, func() error { return ping(pair[0], pair[1]) }},
		{"connect", 10, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, at); err != nil {
				return err
			}
			peer, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			return unix.Close(peer)
		}},
		{"exec", 1, func() error { return exec.Command("/proc/self/exe", "-nothing").Run() }},
	}, nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "guardcost:", err)
		os.Exit(1)
	}
}
