package directory

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
)

func idKey(id string) []byte { return []byte("aem/id/" + id) }

func jobKey(vo xos.VOName, id string) []byte { return []byte("aem/job/" + string(vo) + "/" + id) }

func userPrefix(a xos.Account) []byte {
	return []byte("aem/user/" + string(a.VO) + "/" + string(a.User) + "/")
}

func nodePrefix(n string) []byte { return []byte("aem/node/" + n + "/") }

func countKey(a xos.Account) []byte {
	return []byte("aem/count/" + string(a.VO) + "/" + string(a.User))
}

const endedPrefix = "aem/ended/"

func endedKey(job *xosv1.Job) []byte {
	return []byte(endedPrefix + formatTime(job.Ended.AsTime()) + "/" + job.Id)
}

// load reads a record; xos.NotFound if there is none.
func load(txn kv.Txn, id xos.JobID) (*xosv1.Job, error) {
	vo, ok, err := txn.Get(idKey(string(id)))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, xos.Errorf(xos.NotFound, "there is no job %.80s", id)
	}
	data, ok, err := txn.Get(jobKey(xos.VOName(vo), string(id)))
	if err != nil {
		return nil, err
	}
	job := &xosv1.Job{}
	if !ok || proto.Unmarshal(data, job) != nil {
		return nil, xos.Errorf(xos.Internal, "the record of job %s is damaged", id)
	}
	return job, nil
}

// create stores a first record with its indexes.
func (d *Directory) create(txn kv.Txn, job *xosv1.Job) error {
	a, err := xos.ParseAccount(job.Account)
	if err != nil {
		return err
	}
	n, err := count(txn, a)
	if err != nil {
		return err
	}
	if n >= d.cfg.PerUser {
		return xos.Errorf(xos.TooLarge, "%s has %d jobs already, ended ones of the last %v included", a, n, d.cfg.Keep).
			WithHint("put more work into each job")
	}
	job.Epoch = 1
	for _, key := range [][]byte{append(userPrefix(a), job.Id...), append(nodePrefix(job.SubmitNode), job.Id...)} {
		if err := txn.Put(key, nil); err != nil {
			return err
		}
	}
	if err := txn.Put(idKey(job.Id), []byte(a.VO)); err != nil {
		return err
	}
	if err := txn.Put(countKey(a), []byte(strconv.Itoa(n+1))); err != nil {
		return err
	}
	return d.save(txn, &xosv1.Job{}, job)
}

// save writes a record and moves the indexes that changed.
func (d *Directory) save(txn kv.Txn, old, job *xosv1.Job) error {
	a, err := xos.ParseAccount(job.Account)
	if err != nil {
		return err
	}
	if was := old.ExecutionNode; was != job.ExecutionNode {
		if was != "" && was != job.SubmitNode {
			if err := txn.Delete(append(nodePrefix(was), job.Id...)); err != nil {
				return err
			}
		}
		if job.ExecutionNode != "" {
			if err := txn.Put(append(nodePrefix(job.ExecutionNode), job.Id...), nil); err != nil {
				return err
			}
		}
	}
	if ended(job) && !ended(old) {
		if err := txn.Put(endedKey(job), nil); err != nil {
			return err
		}
		if err := owe(txn, job); err != nil {
			return err
		}
	}
	data, err := proto.Marshal(job)
	if err != nil {
		return err
	}
	return txn.Put(jobKey(a.VO, job.Id), data)
}

func count(txn kv.Txn, a xos.Account) (int, error) {
	v, ok, err := txn.Get(countKey(a))
	if err != nil || !ok {
		return 0, err
	}
	n, err := strconv.Atoi(string(v))
	if err != nil {
		return 0, xos.Errorf(xos.Internal, "the number of jobs of %s is damaged", a)
	}
	return n, nil
}

// Forget removes the jobs that ended longer ago than they are kept, and gives
// their number.
func (d *Directory) Forget(ctx context.Context) (int, error) {
	end := []byte(endedPrefix + formatTime(d.now().Add(-d.cfg.Keep)) + "/")
	total := 0
	for {
		var done int
		err := d.store.Update(ctx, func(txn kv.Txn) error {
			done = 0
			var keys []string
			if err := txn.Range([]byte(endedPrefix), end, func(key, _ []byte) (bool, error) {
				keys = append(keys, string(key))
				return len(keys) < 20, nil // bounded: a transaction is not split
			}); err != nil {
				return err
			}
			for _, key := range keys {
				if err := d.remove(txn, key); err != nil {
					return err
				}
			}
			done = len(keys)
			return nil
		})
		total += done
		if err != nil || done == 0 {
			return total, err
		}
	}
}

// remove takes away one ended job with all that points to it.
func (d *Directory) remove(txn kv.Txn, ended string) error {
	job, err := load(txn, xos.JobID(ended[strings.LastIndexByte(ended, '/')+1:]))
	if err != nil {
		return err
	}
	a, err := xos.ParseAccount(job.Account)
	if err != nil {
		return err
	}
	n, err := count(txn, a)
	if err != nil {
		return err
	}
	keys := [][]byte{[]byte(ended), idKey(job.Id), jobKey(a.VO, job.Id), append(userPrefix(a), job.Id...), append(nodePrefix(job.SubmitNode), job.Id...)}
	if job.ExecutionNode != "" {
		keys = append(keys, append(nodePrefix(job.ExecutionNode), job.Id...))
	}
	for _, k := range keys {
		if err := txn.Delete(k); err != nil {
			return err
		}
	}
	if n <= 1 {
		return txn.Delete(countKey(a))
	}
	return txn.Put(countKey(a), []byte(strconv.Itoa(n-1)))
}

// newestLast sorts by time of submission.
func newestLast(jobs []*xosv1.Job) {
	at := func(j *xosv1.Job) time.Time { return j.Submitted.AsTime() }
	slices.SortFunc(jobs, func(a, b *xosv1.Job) int {
		if c := at(a).Compare(at(b)); c != 0 {
			return c
		}
		return strings.Compare(a.Id, b.Id)
	})
}
