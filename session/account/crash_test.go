package account

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos"
)

// frail is a disk in memory whose power fails after some steps: what was not
// synced by then is lost, in part or in whole.
type frail struct {
	left  int // steps until the power fails
	tear  int // of what was written last and not synced, how many bytes stay
	files map[string]*content
	names map[string]*content // as a crash would leave the directory
}

type content struct {
	data   []byte
	synced int
}

var errPower = errors.New("power failure")

func newFrail() *frail { return &frail{files: map[string]*content{}, names: map[string]*content{}} }

func (d *frail) step() error {
	if d.left--; d.left < 0 {
		return errPower
	}
	return nil
}

func (d *frail) ReadFile(name string) ([]byte, error) {
	f := d.files[name]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return append([]byte{}, f.data...), nil
}

func (d *frail) Create(name string) (file, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	d.files[name] = &content{}
	return &frailFile{d, d.files[name]}, nil
}

func (d *frail) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d *frail) SyncDir() error {
	if err := d.step(); err != nil {
		return err
	}
	d.names = map[string]*content{}
	for name, f := range d.files {
		d.names[name] = f
	}
	return nil
}

// crash gives the disk as it is found after the power failure.
func (d *frail) crash(renamed bool) *frail {
	from := d.names
	if renamed { // a directory may reach the disk unasked, too
		from = d.files
	}
	out := newFrail()
	for name, f := range from {
		keep := min(f.synced+d.tear, len(f.data))
		c := &content{data: append([]byte{}, f.data[:keep]...)}
		c.synced = len(c.data)
		out.files[name], out.names[name] = c, c
	}
	return out
}

type frailFile struct {
	d *frail
	c *content
}

func (f *frailFile) Write(p []byte) (int, error) {
	if err := f.d.step(); err != nil {
		f.c.data = append(f.c.data, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.c.data = append(f.c.data, p...)
	return len(p), nil
}

func (f *frailFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.c.synced = len(f.c.data)
	return nil
}

func (f *frailFile) Truncate(size int64) error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.c.data = f.c.data[:size]
	f.c.synced = min(f.c.synced, int(size))
	return nil
}

func (f *frailFile) Close() error { return nil }

// TestPowerFailure lets the power fail after every step, and tears what was
// under way at several places: whatever was told to anybody is still true.
func TestPowerFailure(t *testing.T) {
	etc := t.TempDir()
	for _, name := range []string{"passwd", "group"} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte("root:x:0:0:::\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Dir: t.TempDir(), Etc: etc}
	ctx := context.Background()
	accounts := []xos.Account{{User: "a", VO: "physics"}, {User: "b", VO: "physics"}, {User: "c", VO: "chemistry"}, {User: "d", VO: "physics"}}
	for steps := 0; ; steps++ {
		whole := false
		for _, tear := range []int{0, 1, 40, 1 << 20} {
			for _, renamed := range []bool{false, true} {
				d := newFrail()
				d.left, d.tear = steps, tear
				told := map[string]uint32{}
				m, err := open(cfg, time.Now, d)
				if err == nil {
					for _, a := range accounts {
						id, err := m.Admit(ctx, a)
						if err != nil {
							break
						}
						told[a.String()] = id
						if e, err := m.Groups(ctx, []string{string(a.VO)}); err == nil {
							told[string(a.VO)] = e[0].ID
						}
					}
				}
				whole = d.left >= 0
				after := d.crash(renamed)
				after.left = 1 << 30
				again, err := open(cfg, time.Now, after)
				if len(told) == 0 && err != nil {
					continue // nothing was promised; an administrator may begin anew
				}
				if err != nil {
					t.Fatalf("%d steps, %d bytes torn: %v", steps, tear, err)
				}
				holder := map[uint32]string{}
				for name, id := range told {
					e, ok := again.Group(name)
					if a, err := xos.ParseAccount(name); err == nil {
						e, ok = again.User(a)
					}
					if !ok || e.ID != id {
						t.Fatalf("%d steps, %d bytes torn: %s was told %d, has %+v", steps, tear, name, id, e)
					}
					if other := holder[id]; other != "" {
						t.Fatalf("%s and %s have %d", name, other, id)
					}
					holder[id] = name
				}
			}
		}
		if whole {
			if steps < 10 {
				t.Fatalf("only %d steps", steps)
			}
			return
		}
	}
}

func TestDamageIsNoticed(t *testing.T) {
	good := newFrail()
	good.left = 1 << 30
	dir := t.TempDir()
	for _, name := range []string{"passwd", "group"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	cfg := Config{Dir: dir, Etc: dir}
	m, err := open(cfg, time.Now, good)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []xos.UserID{"a", "b", "c"} {
		if _, err := m.Admit(context.Background(), xos.Account{User: u, VO: "physics"}); err != nil {
			t.Fatal(err)
		}
	}
	data := good.files[journalName].data
	for i := range data[:len(data)-260] { // the last line may be torn
		d := newFrail()
		d.left = 1 << 30
		bad := append([]byte{}, data...)
		bad[i] ^= 0x01
		d.files[journalName] = &content{data: bad, synced: len(bad)}
		if _, err := open(cfg, time.Now, d); err == nil {
			t.Fatalf("a flipped bit in byte %d went unnoticed", i)
		}
	}
}

func FuzzJournal(f *testing.F) {
	l, _ := line{Version: journalVersion}.encode()
	r, _ := line{Records: []record{{User: "alice@physics", ID: 1879048192, State: Active}}}.encode()
	f.Add([]byte{})
	f.Add(append(append([]byte{}, l...), r...))
	f.Add(append(append([]byte{}, l...), r[:20]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decode(data)
		if err != nil {
			return
		}
		m := &Map{cfg: Config{First: 1000, Last: 2147483646}, users: map[string]record{}, rolls: map[xos.VOName]*roll{}, groups: map[string]record{}, owner: map[uint32]string{}, spent: map[uint32]record{}}
		for _, r := range records {
			m.replay(r)
		}
	})
}
