package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	var wire, stdout, stderr bytes.Buffer
	flushed := 0
	w := NewWriter(&wire, func() { flushed++ })
	long := strings.Repeat("x", maxFrame+1)
	w.Stream(Stdout).Write([]byte("out"))
	w.Stream(Stderr).Write([]byte("err"))
	w.Stream(Stdout).Write([]byte(long))
	end, _ := json.Marshal(Exit{Code: 137, Signal: 9})
	w.Frame(End, end)
	exit, err := Copy(&wire, &stdout, &stderr)
	if err != nil || exit.Code != 137 || exit.Signal != 9 {
		t.Errorf("%+v, %v", exit, err)
	}
	if stdout.String() != "out"+long || stderr.String() != "err" || flushed != 5 {
		t.Errorf("%d bytes, %q, %d flushes", stdout.Len(), stderr.String(), flushed)
	}
}

func TestACutSequenceIsAnError(t *testing.T) {
	var wire bytes.Buffer
	NewWriter(&wire, func() {}).Frame(Stdout, []byte("half"))
	for cut := range wire.Len() + 1 {
		if _, err := Copy(bytes.NewReader(wire.Bytes()[:cut]), nil, nil); err == nil {
			t.Errorf("%d bytes: no error", cut)
		}
	}
}

func FuzzCopy(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'x', 3, 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		Copy(bytes.NewReader(data), &out, &out)
		if out.Len() > len(data) {
			t.Errorf("%d bytes of %d", out.Len(), len(data))
		}
	})
}

func FuzzSpec(f *testing.F) {
	good, _ := Spec{Argv: []string{"true"}, Rows: 5}.Encode()
	f.Add(good)
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := DecodeSpec(text)
		if err == nil && len(s.Argv) == 0 {
			t.Error("no command and no error")
		}
	})
}
