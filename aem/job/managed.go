package job

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem"
	"github.com/xtreemos/xos/aem/shadow"
	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// managed is a job whose manager is this process.
type managed struct {
	m          *Manager
	account    xos.Account
	stdin, tty bool
	rows, cols uint32 // of the terminal at first
	file       string

	mu      sync.Mutex
	job     *xosv1.Job // never changed, only replaced; its epoch is the directory's
	shadow  shadow.ID
	refusal *xos.Error    // why it found no place
	trouble string        // for the user, while something does not answer
	placed  bool          // it runs somewhere, or has ended
	changed chan struct{} // closed and replaced at each change
	kick    chan struct{} // the record is to be written
}

// saved is a managed job in its file.
type saved struct {
	Job        json.RawMessage
	Stdin, TTY bool
	Shadow     shadow.ID
}

func (m *Manager) managed(job *xosv1.Job, a xos.Account) *managed {
	return &managed{m: m, account: a, job: job, file: filepath.Join(m.cfg.Dir, job.Id+".json"),
		changed: make(chan struct{}), kick: make(chan struct{}, 1)}
}

// record gives the job as it is known here; the caller must not change it.
func (j *managed) record() *xosv1.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.job
}

// watch gives the job, what troubles it, and a channel closed at the next
// change of either.
func (j *managed) watch() (*xosv1.Job, string, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.job, j.trouble, j.changed
}

func (j *managed) notify() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// update changes the job, durably where durable says so, and lets its record
// follow. Nothing changes a job that has ended, but its epoch.
func (j *managed) update(durable bool, f func(*xosv1.Job)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ended(j.job) {
		return nil
	}
	next := proto.CloneOf(j.job)
	f(next)
	if proto.Equal(next, j.job) {
		return nil
	}
	old := j.job
	j.job = next
	if durable || ended(next) {
		if err := j.save(); err != nil {
			j.job = old
			return err
		}
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
	j.placed = j.placed || next.Started != nil || ended(next)
	j.notify()
	return nil
}

// save writes the file; the caller holds mu.
func (j *managed) save() error {
	data, err := protojson.Marshal(j.job)
	if err != nil {
		return err
	}
	if err := unit.Write(j.file, saved{data, j.stdin, j.tty, j.shadow}); err != nil {
		return xos.Errorf(xos.Unavailable, "job %s cannot be written down: %w", j.job.Id, err)
	}
	return nil
}

func (j *managed) setTrouble(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trouble != s {
		j.trouble = s
		j.notify()
	}
}

// fail ends a job that no machine runs.
func (j *managed) fail(state xosv1.JobState, reason string) {
	if err := j.update(true, func(job *xosv1.Job) {
		job.State, job.Reason, job.Ended = state, reason, now(j.m)
		if state == xosv1.JobState_JOB_STATE_CANCELED || job.Started != nil {
			job.ExitSignal = 9
		}
	}); err != nil {
		j.m.Log.Error("a job's end is not written down", "job", j.record().Id, "error", err)
	}
}

func now(m *Manager) *timestamppb.Timestamp {
	return timestamppb.New(m.Now().Truncate(time.Microsecond))
}

// add makes a job known; the caller has saved it.
func (m *Manager) add(j *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[xos.JobID(j.job.Id)] = j
}

// load takes over the jobs in the files.
func (m *Manager) load() error {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !aem.ValidJobID(xos.JobID(id)) {
			if strings.HasPrefix(e.Name(), ".new-") { // a write that a crash cut short
				os.Remove(filepath.Join(m.cfg.Dir, e.Name()))
			}
			continue
		}
		if err := m.resume(id); err != nil {
			m.Log.Error("a job could not be taken over", "job", id, "error", err)
		}
	}
	return nil
}

func (m *Manager) resume(id string) error {
	var s saved
	if err := unit.Read(filepath.Join(m.cfg.Dir, id+".json"), &s); err != nil {
		return err
	}
	var job xosv1.Job
	if err := protojson.Unmarshal(s.Job, &job); err != nil {
		return err
	}
	a, err := xos.ParseAccount(job.Account)
	if err != nil || job.Id != id {
		return errors.Join(err, xos.Errorf(xos.Internal, "the file of job %s is about %q", id, job.Id))
	}
	j := m.managed(&job, a)
	j.stdin, j.tty, j.shadow = s.Stdin, s.TTY, s.Shadow
	j.placed = job.Started != nil || ended(&job)
	m.add(j)
	m.attend(j)
	return nil
}

// forget removes a job that has ended and is recorded.
func (m *Manager) forget(j *managed) {
	if err := os.Remove(j.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Log.Error("a job's file was not removed", "job", j.record().Id, "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, xos.JobID(j.record().Id))
}
