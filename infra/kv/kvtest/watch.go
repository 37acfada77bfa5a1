package kvtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

func watch(t *testing.T, s kv.Store, prefix string, after kv.Revision) <-chan kv.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ch, err := s.Watch(ctx, []byte(prefix), after)
	if err != nil {
		t.Fatalf("Watch: %v", err)
	}
	return ch
}

// next gives n events as "key=value" or "-key".
func next(t *testing.T, ch <-chan kv.Event, n int) (texts []string, last kv.Revision) {
	t.Helper()
	ctx := deadline(t)
	for range n {
		select {
		case e, ok := <-ch:
			if !ok {
				t.Fatalf("the watch ended after %d events, want %d", len(texts), n)
			}
			if e.Revision < last {
				t.Errorf("revision %d after %d", e.Revision, last)
			}
			last = e.Revision
			if e.Deleted != (e.Value == nil) {
				t.Errorf("event of %q: Deleted %v, Value %v", e.Key, e.Deleted, e.Value)
			}
			if e.Deleted {
				texts = append(texts, "-"+string(e.Key))
			} else {
				texts = append(texts, string(e.Key)+"="+string(e.Value))
			}
		case <-ctx.Done():
			t.Fatalf("got %d events %q, want %d", len(texts), texts, n)
		}
	}
	return texts, last
}

func testWatchFromNow(t *testing.T, s kv.Store) {
	put(t, s, "t/w/a", "before")
	ch := watch(t, s, "t/w/", 0)
	put(t, s, "t/w/a", "1", "t/x", "other", "t/w/b", "")
	update(t, s, func(txn kv.Txn) error { return txn.Delete([]byte("t/w/a")) })
	got, _ := next(t, ch, 3)
	slices.Sort(got[:2]) // within one commit the order is free
	if d := cmp.Diff([]string{"t/w/a=1", "t/w/b=", "-t/w/a"}, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// testWatchWithoutGaps: a reader takes the state and follows it from there,
// while others write; she must end with the state the store has.
func testWatchWithoutGaps(t *testing.T, s kv.Store) {
	const writers, each = 4, 40
	ctx := deadline(t)
	var wg sync.WaitGroup
	halfway := make(chan struct{}, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if i == each/2 {
					halfway <- struct{}{}
				}
				key := fmt.Sprintf("t/w/%d/%d", w, i%10)
				err := s.Update(ctx, func(txn kv.Txn) error {
					if i%7 == 6 {
						return txn.Delete([]byte(key))
					}
					return errors.Join(txn.Put([]byte(key), fmt.Append(nil, i)), putInt(txn, fmt.Sprintf("t/w/%d/n", w), int64(i)))
				})
				if err != nil {
					t.Errorf("Update: %v", err)
					return
				}
			}
		})
	}
	<-halfway
	state := map[string]string{}
	read := func(into map[string]string) (rev kv.Revision) {
		view(t, s, func(txn kv.Txn) error {
			rev = txn.Revision()
			return txn.Range([]byte("t/w/"), []byte("t/w0"), func(k, v []byte) (bool, error) {
				into[string(k)] = string(v)
				return true, nil
			})
		})
		return rev
	}
	ch := watch(t, s, "t/w/", read(state))
	wg.Wait()
	put(t, s, "t/w/end", "")
	var last kv.Revision
	seen := map[string]bool{}
	for state["t/w/end"] == "" {
		text, rev := next(t, ch, 1)
		if rev < last {
			t.Fatalf("revision %d after %d", rev, last)
		}
		last = rev
		if id := fmt.Sprint(rev, text); seen[id] {
			t.Errorf("event %s came twice", id)
		} else {
			seen[id] = true
		}
		if key, gone := strings.CutPrefix(text[0], "-"); gone {
			delete(state, key)
		} else {
			key, value, _ := strings.Cut(text[0], "=")
			state[key] = value
			if key == "t/w/end" {
				break
			}
		}
	}
	want := map[string]string{}
	read(want)
	if d := cmp.Diff(want, state); d != "" {
		t.Errorf("following the events gives another state (-want +got):\n%s", d)
	}
	if len(slices.Collect(maps.Keys(want))) < writers {
		t.Error("the writers wrote nothing")
	}
}

func testWatchResume(t *testing.T, s kv.Store) {
	first := watch(t, s, "t/", 0)
	var want []string
	for i := range 6 {
		put(t, s, "t/a", fmt.Sprint(i))
		want = append(want, fmt.Sprintf("t/a=%d", i))
	}
	_, at := next(t, first, 3)
	got, last := next(t, watch(t, s, "t/", at), 3)
	if d := cmp.Diff(want[3:], got); d != "" {
		t.Errorf("resumed after the third (-want +got):\n%s", d)
	}
	tail := watch(t, s, "t/", last)
	put(t, s, "t/b", "new")
	if got, _ := next(t, tail, 1); got[0] != "t/b=new" {
		t.Errorf("resumed after the last: %q", got)
	}
	_, err := s.Watch(deadline(t), []byte("t/"), last+1_000_000)
	wantKind(t, err, xos.Expired) // another store's revision: what it missed is not known
}

func testWatchEnds(t *testing.T, s kv.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	ch, err := s.Watch(ctx, []byte("t/"), 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "the channel is closed after its context ended", func() bool {
		select {
		case _, ok := <-ch:
			return !ok
		default:
			return false
		}
	})
}
