package unit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xtreemos/xos/aem/unit"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

func TestSpoolIsReadFromAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	s, err := unit.CreateSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	for n := 0; n < unit.SpoolSize; n += len(chunk) {
		if _, err := s.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("wrote beyond what is kept: %v", err)
	}
	full, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Room(full); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("room in a full spool: %v", err)
	}
	if err := s.Ack(1000); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Room(t.Context()); n != 1000 || err != nil {
		t.Errorf("room %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = unit.OpenSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	buf := make([]byte, 16)
	if n, at, err := s.ReadFrom(t.Context(), 0, buf); n != 16 || at != 1000 || err != nil || string(buf) != "89abcdef01234567" {
		t.Errorf("%d at %d, %v: %q", n, at, err, buf)
	}
	if _, _, err := s.ReadFrom(t.Context(), unit.SpoolSize, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestDamagedSpool(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	for name, data := range map[string][]byte{"short": {1, 2}, "backwards": append(bytes.Repeat([]byte{0xff}, 7), make([]byte, 9)...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := unit.OpenSpool(path); err == nil {
			s.Close()
			t.Errorf("%s was opened", name)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	if err := unit.WriteFrame(&b, &xosv1.ToJob{Job: "core-1", Stdin: []byte("x"), Signal: -2}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			var m xosv1.ToJob
			if err := unit.ReadFrame(r, &m); err != nil {
				return
			}
			if err := unit.WriteFrame(io.Discard, &m); err != nil {
				t.Errorf("read what cannot be written: %v", err)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 77 0"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := unit.ParseStat(data); err == nil && p.State == 0 {
			t.Errorf("%q has no state", data)
		}
	})
}
