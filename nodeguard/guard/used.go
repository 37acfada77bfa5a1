package guard

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/bpf"
	"github.com/xtreemos/xos/nodeguard"
)

var _ nodeguard.Meter = (*Guard)(nil)

// Used implements nodeguard.Meter.
func (g *Guard) Used(_ context.Context, a xos.Account, job xos.JobID) (nodeguard.Used, error) {
	path, err := g.cgroups.path(a.VO, job)
	if err != nil {
		return nodeguard.Used{}, err
	}
	u, cpu, counted, err := g.usedOf(bpf.AccountXosKindXOS_OF_JOB, a.VO, string(job), filepath.Join(g.cgroups.root, path))
	if err == nil && !cpu && !counted {
		err = xos.Errorf(xos.NotFound, "nothing is known of what job %s uses", job)
	}
	return u, err
}

// usedOf reads the figures of a cgroup and of the meter, and says of each whether
// it has any.
func (g *Guard) usedOf(kind bpf.AccountXosKind, vo xos.VOName, name, dir string) (u nodeguard.Used, cpu, counted bool, err error) {
	files := map[string]float64{}
	readCgroup(dir, files)
	_, cpu = files[cpuUser]
	peak, memory := files[memoryPeak]
	_, disks := files[ioRead]
	u.CPUUser, u.CPUSystem = seconds(files[cpuUser]), seconds(files[cpuSystem])
	u.MemoryPeak = int64(peak)
	u.Read, u.Written = uint64(files[ioRead]), uint64(files[ioWritten])

	var n bpf.AccountXosUsed
	if g.meter != nil {
		if n, counted, err = g.meter.withAlive(kind, vo, name, dir); err != nil {
			return u, cpu, counted, err
		}
	}
	u.NetIn, u.NetOut, u.Execs, u.Opens, u.Refused = n.NetIn, n.NetOut, n.Execs, n.Opens, n.Refused
	if !disks {
		u.Read, u.Written = n.Read, n.Written
	}
	for _, of := range []struct {
		name string
		have bool
	}{{"cpu", cpu}, {"memory", memory}, {"disk", disks || counted}, {"net", counted}, {"execs", counted},
		{"opens", counted && g.meter.opens == nil}, {"refused", counted}} {
		if !of.have {
			u.Uncounted = append(u.Uncounted, of.name)
		}
	}
	return u, cpu, counted, nil
}

func seconds(n float64) time.Duration { return time.Duration(n*1e6) * time.Microsecond }

const (
	// calm is for how long nothing must be sent or received any more for a job
	// that has ended: the kernel sends what was in its sockets.
	calm = 50 * time.Millisecond
	// calmIn is how long that is waited for. What comes later counts for the VO
	// only.
	calmIn = time.Second
)

// EndJob implements nodeguard.Meter.
func (g *Guard) EndJob(ctx context.Context, a xos.Account, job xos.JobID) (nodeguard.Used, error) {
	path, err := g.cgroups.path(a.VO, job)
	if err != nil {
		return nodeguard.Used{}, err
	}
	if err := depopulate(ctx, filepath.Join(g.cgroups.root, path)); err != nil {
		return nodeguard.Used{}, xos.Errorf(xos.Unavailable, "processes of job %s do not end: %w", job, err)
	}
	u, err := g.Used(ctx, a, job)
	for end := time.Now().Add(calmIn); err == nil && u.NetIn+u.NetOut > 0 && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return u, ctx.Err()
		case <-time.After(calm):
		}
		before := u
		if u, err = g.Used(ctx, a, job); u.NetIn == before.NetIn && u.NetOut == before.NetOut {
			break
		}
	}
	return u, err
}

// depopulate kills all in a cgroup and waits until nothing is in it, nor below it.
func depopulate(ctx context.Context, dir string) error {
	if err := killAll(dir); gone(err) {
		return nil
	} else if err != nil {
		return err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if gone(err) {
			return nil
		} else if err != nil {
			return err
		}
		if !slices.Contains(strings.Split(string(data), "\n"), "populated 1") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
