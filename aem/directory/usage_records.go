package directory

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/usage"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
	"github.com/xtreemos/xos/infra/kv"
)

const (
	usageAll  = "aem/usage/"
	usageUser = "aem/usage-user/"
)

// usagePlace is a record's place among all: it sorts by VO and time.
func usagePlace(r *xosv1.UsageRecord) (place, mine string, err error) {
	a, err := xos.ParseAccount(r.Account)
	if err != nil {
		return "", "", err
	}
	rest := formatTime(r.Until.AsTime()) + "/" + usage.ID(r) + "/" + r.Node
	return string(a.VO) + "/" + rest, string(a.VO) + "/" + string(a.User) + "/" + rest, nil
}

// usageJob is by what a record is found of a job, or of a stay.
func usageJob(job, node string) []byte { return []byte("aem/usage-job/" + job + "/" + node) }

// loadUsage gives what is recorded of a job on a machine; nil for nothing.
func loadUsage(txn kv.Txn, job, node string) (*xosv1.UsageRecord, error) {
	place, ok, err := txn.Get(usageJob(job, node))
	if err != nil || !ok {
		return nil, err
	}
	return usageAt(txn, string(place))
}

func usageAt(txn kv.Txn, place string) (*xosv1.UsageRecord, error) {
	data, ok, err := txn.Get([]byte(usageAll + place))
	if err != nil {
		return nil, err
	}
	r := &xosv1.UsageRecord{}
	if !ok || proto.Unmarshal(data, r) != nil {
		return nil, xos.Errorf(xos.Internal, "the record of usage %s is damaged", place)
	}
	return r, nil
}

// saveUsage puts a record in the place of old, which may be nil.
func saveUsage(txn kv.Txn, old, r *xosv1.UsageRecord) error {
	if old != nil {
		if err := deleteUsage(txn, old); err != nil {
			return err
		}
	}
	place, mine, err := usagePlace(r)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	if err := txn.Put([]byte(usageAll+place), data); err != nil {
		return err
	}
	if err := txn.Put([]byte(usageUser+mine), nil); err != nil {
		return err
	}
	return txn.Put(usageJob(usage.ID(r), r.Node), []byte(place))
}

func deleteUsage(txn kv.Txn, r *xosv1.UsageRecord) error {
	place, mine, err := usagePlace(r)
	if err != nil {
		return err
	}
	for _, key := range [][]byte{[]byte(usageAll + place), []byte(usageUser + mine), usageJob(usage.ID(r), r.Node)} {
		if err := txn.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// listUsage gives the records of a VO, or of all for "", and of one user of it
// if she is named, by VO and time; after says where to read on, "" for the end.
func listUsage(txn kv.Txn, vo xos.VOName, user xos.UserID, since, before time.Time, after string, size int) (list []*xosv1.UsageRecord, next string, err error) {
	prefix := usageAll
	if vo != "" {
		prefix += string(vo) + "/"
	}
	if user != "" {
		prefix = usageUser + string(vo) + "/" + string(user) + "/"
	}
	start, end := []byte(prefix), kv.PrefixEnd([]byte(prefix))
	if vo != "" { // else the bounds of time are in each VO's part
		if !since.IsZero() {
			start = []byte(prefix + formatTime(since))
		}
		if !before.IsZero() {
			end = []byte(prefix + formatTime(before.Add(time.Second)))
		}
	}
	if after != "" {
		if !strings.HasPrefix(after, prefix[len("aem/"):]) || "aem/"+after < string(start) {
			return nil, "", xos.Errorf(xos.Invalid, "%.80q is no place to read on from", after)
		}
		start = []byte("aem/" + after + "\x00")
	}
	if string(start) >= string(end) {
		return nil, "", nil
	}
	var places []string
	last, examined := "", 0
	err = txn.Range(start, end, func(key, _ []byte) (bool, error) {
		if examined == size {
			next = last
			return false, nil
		}
		examined++
		last = strings.TrimPrefix(string(key), "aem/")
		place := strings.TrimPrefix(string(key), usageAll)
		if user != "" {
			place = string(vo) + "/" + string(key[len(prefix):])
		}
		places = append(places, place)
		return true, nil
	})
	if err != nil {
		return nil, "", err
	}
	for _, place := range places {
		r, err := usageAt(txn, place)
		if err != nil {
			return nil, "", err
		}
		if at := r.Until.AsTime(); at.Before(since) || !before.IsZero() && !at.Before(before) {
			continue
		}
		list = append(list, r)
	}
	return list, next, nil
}

// ForgetUsage removes records that are older than they are kept, and gives
// their number.
func (d *Directory) ForgetUsage(ctx context.Context) (int, error) {
	limit := formatTime(d.now().Add(-d.cfg.KeepUsage))
	total := 0
	for from := []byte(usageAll); ; {
		var done int
		var next []byte
		err := d.store.Update(ctx, func(txn kv.Txn) error {
			done, next = 0, nil
			var old []string
			if err := txn.Range(from, kv.PrefixEnd([]byte(usageAll)), func(key, _ []byte) (bool, error) {
				vo, rest, _ := strings.Cut(string(key[len(usageAll):]), "/")
				at, _, _ := strings.Cut(rest, "/")
				if _, err := strconv.ParseInt(at, 10, 64); err != nil || at >= limit { // this VO has no older ones
					next = kv.PrefixEnd([]byte(usageAll + vo + "/"))
					return false, nil
				}
				old = append(old, string(key[len(usageAll):]))
				next = from
				return len(old) < 20, nil // bounded: a transaction is not split
			}); err != nil {
				return err
			}
			for _, place := range old {
				r, err := usageAt(txn, place)
				if err != nil {
					return err
				}
				if err := deleteUsage(txn, r); err != nil {
					return err
				}
			}
			done = len(old)
			return nil
		})
		total += done
		if err != nil || next == nil {
			return total, err
		}
		from = next
	}
}

func (d *Directory) forgetUsage(ctx context.Context) {
	if n, err := d.ForgetUsage(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("forgetting old records of usage", "error", err)
	} else if n > 0 {
		d.log.Info("forgot old records of usage", "number", n)
	}
}
