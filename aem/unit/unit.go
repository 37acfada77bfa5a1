// Package unit is what the execution manager and a job's supervisor share:
// the directory /run/xos/jobs/ID of one job unit, in which a restarted
// execution manager finds it again, and the frames on its socket.
//
//	spec.json    what to run, written by the execution manager (Spec)
//	state.json   how it stands, written by the supervisor (State)
//	stdout,      what the job wrote and nobody has acknowledged yet (Spool)
//	stderr
//	sock         the supervisor's socket: frames of ToJob and FromJob
//
// The directory has mode 0700: all in it is for root only.
package unit

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
)

// The names of the files in a unit's directory.
const (
	SpecFile   = "spec.json"
	StateFile  = "state.json"
	StdoutFile = "stdout"
	StderrFile = "stderr"
	SocketFile = "sock"
	// RootDir is where the supervisor, in its own mount namespace, builds the
	// job's view of the file system; it looks empty to everyone else.
	RootDir = "root"
	// RuntimeDir holds libcontainer's state.
	RuntimeDir = "runtime"
)

// maxFile bounds spec.json and state.json.
const maxFile = 4 << 20

// Spec is what to run and as whom. The execution manager has verified all of
// it.
type Spec struct {
	Job        xos.JobID
	Account    xos.Account
	Name       string
	SubmitNode xos.NodeID
	// Order is the SHA-256 of the order that started the unit.
	Order     []byte
	Submitted time.Time

	UID, GID uint32
	Groups   []uint32
	Home     string
	// Homes is the directory of the VO's homes ("/home/xos/physics"); the rest
	// of HomesRoot ("/home/xos") is hidden from the job. Both may be empty.
	Homes, HomesRoot string
	// Runtime is the directory in which the job finds the machine's session
	// service and account map ("/run/xos"); "" for none.
	Runtime string

	Argv, Env []string
	Directory string // "" for Home
	Umask     uint32
	Stdin     bool // stdin will be sent; else it is /dev/null
	TTY       bool
	// Rows and Columns of the terminal; 0 for 24 by 80.
	Rows, Columns uint16
	// Cgroup of the job, relative to the root of the cgroup hierarchies.
	Cgroup string
	// Limits: "memory" in bytes, "cpus" in thousandths, "processes", and
	// "seconds" of life.
	Limits map[string]int64
}

// State is how a unit stands.
type State struct {
	State  aem.State
	Exit   aem.Exit
	Reason string
	// PID and StartTime (clock ticks since boot, from /proc/PID/stat) name
	// the supervisor, whatever becomes of the pid.
	PID       int
	StartTime uint64
	Started   time.Time
	Ended     time.Time
	Usage     aem.Usage
	// Notices tell the user what this machine could not do for the job.
	Notices []string
}

// Write stores v as JSON at path, readable by root only; all or nothing, and
// on disk when it returns.
func Write(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Read loads what Write stored.
func Read(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return xos.Errorf(xos.Internal, "reading %s: %w", path, err)
	}
	return nil
}
