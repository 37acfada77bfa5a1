package guard

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/infra/rpc"
	"github.com/xtreemos/xos/session"
)

// GuardExplain implements GuardHandler.
func (g *Guard) GuardExplain(ctx context.Context, req *connect.Request[xosv1.GuardExplainRequest]) (*connect.Response[xosv1.GuardExplainResponse], error) {
	p := rpc.PeerFrom(ctx)
	if !p.Unix {
		return nil, xos.Errorf(xos.Permission, "this is for the machine's own users")
	}
	level, _ := g.Level()
	resp := &xosv1.GuardExplainResponse{Level: string(level)}
	if pid := req.Msg.Pid; pid != 0 {
		found, err := g.explain(pid, p.UID)
		if err != nil {
			return nil, err
		}
		resp.Process = found
		resp.Policy = g.policyOf(xos.VOName(found.Vo), p.UID == 0)
	}
	if g.lsm == nil {
		return connect.NewResponse(resp), nil
	}
	for _, h := range hooks {
		hook := &xosv1.GuardHook{Name: h.name, Aim: h.aim, Judges: h.judges, Attached: true}
		if err := g.lsm.failed[h.name]; err != nil {
			hook.Attached, hook.Why = false, err.Error()
		}
		if p.UID == 0 {
			n, err := g.lsm.count(uint32(h.id))
			if err != nil {
				return nil, err
			}
			hook.Refused = n
		}
		resp.Hooks = append(resp.Hooks, hook)
	}
	return connect.NewResponse(resp), nil
}

// explain says of a process of uid's, or of any to root, what the programs take
// it for. All is read of one process, even if its number is given to another
// meanwhile.
func (g *Guard) explain(pid int32, uid uint32) (*xosv1.GuardProcess, error) {
	none := xos.Errorf(xos.NotFound, "you have no process %d here", pid)
	dir, err := os.OpenRoot("/proc/" + strconv.FormatInt(int64(pid), 10))
	if pid < 0 || err != nil {
		return nil, none
	}
	defer dir.Close()
	of, err := realUID(dir)
	if err != nil || uid != 0 && of != uid {
		return nil, none
	}
	cgroup, err := cgroupOf(dir)
	if err != nil {
		return nil, none
	}
	found := &xosv1.GuardProcess{Pid: pid, Uid: of}
	if g.labels == nil {
		found.Says = []string{"this machine has no programs that keep VOs apart"}
		return found, nil
	}
	whose, by, err := g.labels.whose(cgroup, of)
	if err != nil {
		return nil, err
	}
	found.Vo, found.By = string(g.labels.names.vo(whose)), by
	if a, ok := g.labels.account(of); ok {
		found.Account = a.String()
	}
	if id, err := cgroupID(filepath.Join(g.labels.root, ancestor(cgroup, 3))); err == nil {
		found.Job = string(g.labels.jobOf(id))
	}
	found.Says = consequences(whose, found.Vo, g.lsm != nil)
	return found, nil
}

// consequences puts a label into words.
func consequences(label uint32, vo string, lsm bool) []string {
	switch {
	case label == system:
		return []string{"no measure of the guard's concerns it"}
	case label == stranger:
		return []string{"it is of the grid and no VO is known for it: it gets no sockets, executes nothing and reaches nobody's"}
	case vo == "":
		vo = "of number " + strconv.FormatUint(uint64(label), 10)
	}
	says := []string{"it reaches ports of VO " + vo + " and of the machine's own services on this machine, and of VOs that share the network with it"}
	if lsm {
		return append(says, "it reaches processes, files, sockets, IPC objects and keys of VO "+vo+" as far as their modes allow, and of VOs that share those with it",
			"it may not use bpf(), nor touch the guard's pins and the machine's cgroups")
	}
	return append(says, "the kernel's own checks are not the guard's here (level C)")
}

// Labels that are no VO's number, as bpf/lsm.h has them.
const (
	system   uint32 = 0
	stranger uint32 = 1<<32 - 1
)

// whose gives the label of what has a uid and is in a cgroup, and what says so:
// the same decision as in bpf/label.h.
func (l *labels) whose(cgroup string, uid uint32) (label uint32, by string, err error) {
	l.mu.Lock()
	cgroups := l.cgroups
	l.mu.Unlock()
	if at := ancestor(cgroup, 2); cgroups != nil && at != "" {
		var got bpf.LsmXosCgroup
		id, err := cgroupID(filepath.Join(l.root, at))
		if err == nil {
			err = cgroups.Lookup(id, &got)
		}
		if err == nil && (got.Logins == 0 || uid != 0) {
			return got.Vo, "cgroup " + at, nil
		} else if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && !errors.Is(err, os.ErrNotExist) {
			return 0, "", xos.Errorf(xos.Unavailable, "looking up the label of cgroup %s: %w", at, err)
		}
	}
	by = "uid " + strconv.FormatUint(uint64(uid), 10)
	if uid < session.FirstID || uid > session.LastID {
		return system, by, nil
	}
	err = l.uids.Lookup(uid, &label)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return stranger, by, nil
	} else if err != nil {
		return 0, "", xos.Errorf(xos.Unavailable, "looking up the label of uid %d: %w", uid, err)
	}
	return label, by, nil
}

// ancestor cuts a cgroup's path to a depth; "" if it is not so deep.
func ancestor(path string, depth int) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < depth {
		return ""
	}
	return "/" + strings.Join(parts[:depth], "/")
}

// cgroupOf reads the path of a process's cgroup of version 2.
func cgroupOf(proc *os.Root) (string, error) {
	data, err := readSmall(proc, "cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(data) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", xos.Errorf(xos.NotFound, "it has no cgroup of version 2")
}

func realUID(proc *os.Root) (uint32, error) {
	data, err := readSmall(proc, "status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(data) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				n, err := strconv.ParseUint(fields[0], 10, 32)
				return uint32(n), err
			}
		}
	}
	return 0, xos.Errorf(xos.Internal, "no uid in a process's status")
}

// readSmall reads a file of /proc/PID, which fails once the process is gone.
func readSmall(proc *os.Root, name string) (string, error) {
	f, err := proc.OpenFile(name, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(bufio.NewReader(f), 64<<10))
	return string(data), err
}

// refusals gives what each VO was refused, by name.
func (g *Guard) refusals() ([]*xosv1.GuardVO, error) {
	if g.network == nil || g.labels == nil {
		return nil, nil
	}
	told, err := g.network.tellings()
	if err != nil {
		return nil, err
	}
	vos := map[uint32]*xosv1.GuardVO{}
	for num, t := range told {
		vo := &xosv1.GuardVO{Vo: string(g.labels.names.vo(num)), ByAim: map[string]uint64{}, Lost: t.Lost}
		add(vo, aimNetwork, t.Network)
		add(vo, aimDevices, t.Devices)
		vos[num] = vo
	}
	if g.lsm != nil {
		var num uint32
		var tally bpf.LsmXosTally
		all := g.lsm.maps[bpf.LsmMapLsmTallies].Iterate()
		for all.Next(&num, &tally) {
			if vos[num] == nil {
				continue // it came just now
			}
			for _, h := range hooks {
				add(vos[num], h.aim, tally.Denied[h.id])
			}
		}
		if err := all.Err(); err != nil {
			return nil, xos.Errorf(xos.Unavailable, "reading what VOs were refused: %w", err)
		}
	}
	var list []*xosv1.GuardVO
	for _, vo := range vos {
		if vo.Vo != "" || vo.Refused > 0 || vo.Lost > 0 { // nobody's only if there is something
			list = append(list, vo)
		}
	}
	slices.SortFunc(list, func(a, b *xosv1.GuardVO) int { return strings.Compare(a.Vo, b.Vo) })
	return list, nil
}

// add adds to what a VO was refused.
func add(vo *xosv1.GuardVO, aim string, n uint64) {
	if n > 0 {
		vo.Refused += n
		vo.ByAim[aim] += n
	}
}
