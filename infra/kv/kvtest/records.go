package kvtest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/infra/kv"
)

func testRecords(t *testing.T, s kv.Store) {
	binaryKey := "t/\x00\xff\n"
	put(t, s, "t/a", "1", "t/empty", "", binaryKey, "\x00")
	put(t, s, "t/a", "2")
	view(t, s, func(txn kv.Txn) error {
		for _, c := range []struct {
			key, want string
			ok        bool
		}{{"t/a", "2", true}, {"t/empty", "", true}, {binaryKey, "\x00", true}, {"t/none", "", false}, {"t/", "", false}} {
			v, ok, err := txn.Get([]byte(c.key))
			if err != nil || ok != c.ok || string(v) != c.want {
				t.Errorf("Get(%q) = %q, %v, %v; want %q, %v", c.key, v, ok, err, c.want, c.ok)
			}
		}
		return nil
	})
	update(t, s, func(txn kv.Txn) error { return txn.Delete([]byte("t/a")) })
	update(t, s, func(txn kv.Txn) error { return txn.Delete([]byte("t/never")) })
	view(t, s, func(txn kv.Txn) error {
		if _, ok, err := txn.Get([]byte("t/a")); ok || err != nil {
			t.Errorf("a deleted record: %v, %v", ok, err)
		}
		return nil
	})
}

func testRange(t *testing.T, s kv.Store) {
	put(t, s, "t/a", "1", "t/b", "2", "t/b\x00", "3", "t/b\xff", "4", "t/c", "5", "u", "6")
	for _, c := range []struct {
		name, start, end string
		want             []string
	}{
		{"all", "t/", "u", []string{"t/a=1", "t/b=2", "t/b\x00=3", "t/b\xff=4", "t/c=5"}},
		{"half open", "t/b", "t/c", []string{"t/b=2", "t/b\x00=3", "t/b\xff=4"}},
		{"prefix", "t/b", string(kv.PrefixEnd([]byte("t/b"))), []string{"t/b=2", "t/b\x00=3", "t/b\xff=4"}},
		{"empty", "t/d", "t/e", nil},
		{"reversed", "t/c", "t/a", nil},
		{"to the last", "t/c", "", []string{"t/c=5", "u=6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			view(t, s, func(txn kv.Txn) error {
				got, err := list(txn, c.start, c.end)
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("Range (-want +got):\n%s", d)
				}
				return err
			})
		})
	}
	t.Run("stops", func(t *testing.T) {
		stop := errors.New("stop")
		n := 0
		err := s.View(deadline(t), func(txn kv.Txn) error {
			if err := txn.Range([]byte("t/"), []byte("u"), func(_, _ []byte) (bool, error) { n++; return n < 2, nil }); err != nil {
				return err
			}
			return txn.Range([]byte("t/"), []byte("u"), func(_, _ []byte) (bool, error) { n++; return true, stop })
		})
		if n != 3 || err != stop {
			t.Errorf("f was called %d times, want 3; error %v, want %v itself", n, err, stop)
		}
	})
	t.Run("many", func(t *testing.T) { testRangeMany(t, s) })
}

// testRangeMany reads more than an engine fetches at once.
func testRangeMany(t *testing.T, s kv.Store) {
	const n = 3000
	for i := 0; i < n; i += 50 {
		update(t, s, func(txn kv.Txn) error {
			for j := i; j < i+50; j++ {
				if err := txn.Put([]byte{'t', '/', 'm', byte(j >> 8), byte(j)}, bytes.Repeat([]byte{byte(j)}, 100)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	view(t, s, func(txn kv.Txn) error {
		i := 0
		err := txn.Range([]byte("t/m"), kv.PrefixEnd([]byte("t/m")), func(k, v []byte) (bool, error) {
			if want := []byte{'t', '/', 'm', byte(i >> 8), byte(i)}; !bytes.Equal(k, want) || len(v) != 100 {
				return false, xos.Errorf(xos.Internal, "record %d is %q with %d bytes", i, k, len(v))
			}
			i++
			return true, nil
		})
		if i != n {
			t.Errorf("read %d records, want %d", i, n)
		}
		return err
	})
}

func testOwnWrites(t *testing.T, s kv.Store) {
	put(t, s, "t/a", "1", "t/c", "3", "t/e", "5")
	update(t, s, func(txn kv.Txn) error {
		err := errors.Join(txn.Put([]byte("t/b"), []byte("2")), txn.Put([]byte("t/c"), []byte("new")),
			txn.Delete([]byte("t/e")), txn.Put([]byte("t/f"), []byte("6")), txn.Put([]byte("t/g"), nil), txn.Delete([]byte("t/g")))
		if err != nil {
			return err
		}
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/a=1", "t/b=2", "t/c=new", "t/f=6"}, got); d != "" {
			t.Errorf("Range of own writes (-want +got):\n%s", d)
		}
		if v, ok, _ := txn.Get([]byte("t/c")); !ok || string(v) != "new" {
			t.Errorf("Get of an own write: %q, %v", v, ok)
		}
		if _, ok, _ := txn.Get([]byte("t/e")); ok {
			t.Error("Get finds a record deleted in this transaction")
		}
		// Writing while ranging must neither disturb the range nor be lost.
		return errors.Join(err, txn.Range([]byte("t/"), []byte("t0"), func(k, _ []byte) (bool, error) {
			return true, errors.Join(txn.Delete(k), txn.Put(append([]byte("t/z"), k...), nil))
		}))
	})
	view(t, s, func(txn kv.Txn) error {
		got, err := list(txn, "t/", "t0")
		if d := cmp.Diff([]string{"t/zt/a=", "t/zt/b=", "t/zt/c=", "t/zt/f="}, got); d != "" {
			t.Errorf("after the commit (-want +got):\n%s", d)
		}
		return err
	})
}

func testAbort(t *testing.T, s kv.Store) {
	cause := errors.New("no")
	err := s.Update(deadline(t), func(txn kv.Txn) error {
		return errors.Join(txn.Put([]byte("t/a"), nil), cause)
	})
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want the function's own error", err)
	}
	view(t, s, func(txn kv.Txn) error {
		_, ok, err := txn.Get([]byte("t/a"))
		if ok {
			t.Error("an aborted transaction wrote")
		}
		return err
	})
}

func testMisuse(t *testing.T, s kv.Store) {
	wantKind(t, s.View(deadline(t), func(txn kv.Txn) error { return txn.Put([]byte("t/a"), nil) }), xos.Invalid)
	wantKind(t, s.Update(deadline(t), func(txn kv.Txn) error { return txn.Put(nil, nil) }), xos.Invalid)
	var kept kv.Txn
	update(t, s, func(txn kv.Txn) error { kept = txn; return nil })
	if err := kept.Put([]byte("t/a"), nil); err == nil {
		t.Error("a transaction can be used after its end")
	}
	if _, err := s.Lease(deadline(t), 0); err == nil {
		t.Error("a lease of no time was given")
	}
}

func testLimits(t *testing.T, s kv.Store) {
	l := s.Limits()
	// refused shows that a transaction beyond a limit leaves nothing behind,
	// even if its function ignores the error.
	refused := func(name string, f func(txn kv.Txn)) {
		t.Run(name, func(t *testing.T) {
			wantKind(t, s.Update(deadline(t), func(txn kv.Txn) error {
				if err := txn.Put([]byte("t/first"), nil); err != nil {
					return err
				}
				f(txn)
				return nil
			}), xos.TooLarge)
			view(t, s, func(txn kv.Txn) error {
				got, err := list(txn, "t/", "t0")
				if len(got) > 0 {
					t.Errorf("a refused transaction left %d records", len(got))
				}
				return err
			})
		})
	}
	if l.Key > 0 {
		refused("Key", func(txn kv.Txn) { _ = txn.Put(append([]byte("t/"), make([]byte, l.Key)...), nil) })
	}
	if l.Value > 0 {
		refused("Value", func(txn kv.Txn) { _ = txn.Put([]byte("t/v"), make([]byte, l.Value+1)) })
	}
	if l.TxnBytes > 0 {
		chunk := l.TxnBytes/8 + 1
		if l.Value > 0 {
			chunk = min(chunk, l.Value)
		}
		refused("TxnBytes", func(txn kv.Txn) {
			for i := 0; i <= l.TxnBytes/chunk; i++ {
				_ = txn.Put([]byte{'t', '/', byte(i >> 8), byte(i)}, make([]byte, chunk))
			}
		})
	}
	if l.TxnOps > 0 {
		refused("TxnOps", func(txn kv.Txn) {
			for i := 0; i <= l.TxnOps; i++ {
				_ = txn.Put([]byte{'t', '/', byte(i >> 8), byte(i)}, nil)
			}
		})
	}
	if l.Value > 0 {
		t.Run("ValueFits", func(t *testing.T) {
			update(t, s, func(txn kv.Txn) error { return txn.Put([]byte("t/v"), make([]byte, l.Value)) })
		})
	}
}
