package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// daemons by the node where they are looked at.
var daemons = []struct{ name, node string }{
	{"xos-core", "core"}, {"xos-osd", "core"}, {"xos-node", "node1"}, {"mount.xosfs", "node1"},
}

// idleTime is for how long the daemons are watched.
const idleTime = 10 * time.Second

// idle is what the daemons take while users are logged in and do nothing.
var idle = func() measurement {
	m := measurement{run: watch}
	for _, d := range daemons {
		m.names = append(m.names, "rss_"+d.name+"_MB", "cpu_idle_"+d.name+"_percent")
	}
	return m
}()

func watch(ctx context.Context, s *stage) (figures []figure, err error) {
	// What the logins set going shall have ended.
	if err := pause(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	before, err := s.usages(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	after, err := s.usages(ctx)
	if err != nil {
		return nil, err
	}
	for i, d := range daemons {
		if before[i].pid != after[i].pid {
			return nil, fmt.Errorf("%s has died meanwhile", d.name)
		}
		busy := (after[i].processor - before[i].processor).Seconds() / after[i].when.Sub(before[i].when).Seconds()
		figures = append(figures,
			newFigure("rss_"+d.name+"_MB", "MB", []float64{after[i].memory / 1e6}, "on "+d.node),
			newFigure("cpu_idle_"+d.name+"_percent", "%", []float64{100 * busy}, fmt.Sprintf("of one processor, over %v", idleTime)))
	}
	return figures, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// usage of a daemon so far: processor time, and resident memory in bytes.
type usage struct {
	pid       string
	when      time.Time
	processor time.Duration
	memory    float64
}

func (s *stage) usages(ctx context.Context) ([]usage, error) {
	all := make([]usage, len(daemons))
	for i, d := range daemons {
		out, err := s.Node(d.node).Output(ctx, "/bin/sh", "-ec",
			`pid=$(pgrep -ox "$1"); echo $pid; cat /proc/$pid/stat; grep VmRSS /proc/$pid/status`, "usage", d.name)
		if err != nil {
			return nil, err
		}
		if all[i], err = parseUsage(out); err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		all[i].when = time.Now()
	}
	return all, nil
}

// parseUsage reads a pid, a line of proc_pid_stat(5), whose fields 14 and 15
// are times in hundredths of a second, and a line with VmRSS in KiB.
func parseUsage(text string) (u usage, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 {
		return u, fmt.Errorf("%q tells no usage", text)
	}
	u.pid = lines[0]
	stat := strings.Fields(lines[1][strings.LastIndexByte(lines[1], ')')+1:])
	memory := strings.Fields(lines[2])
	if len(stat) < 13 || len(memory) != 3 {
		return u, fmt.Errorf("%q tells no usage", text)
	}
	for _, field := range stat[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, err
		}
		u.processor += time.Duration(ticks) * 10 * time.Millisecond
	}
	kib, err := strconv.ParseFloat(memory[1], 64)
	u.memory = kib * 1024
	return u, err
}
