package userdb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// FuzzCall: whatever is sent is refused or answered, with valid messages of which
// the last alone is the last.
func FuzzCall(f *testing.F) {
	for _, s := range []string{
		`{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"userName":"alice@physics","service":"io.xtreemos.UserDatabase"}}`,
		`{"method":"io.systemd.UserDatabase.GetGroupRecord","parameters":{"gid":1879048192,"service":"io.xtreemos.UserDatabase"},"more":true}`,
		`{"method":"io.systemd.UserDatabase.GetMemberships","parameters":{"groupName":"physics","userName":null,"service":"x"},"oneway":true}`,
		`{"method":"org.varlink.service.GetInfo"}`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.varlink.service"}}`,
		`{"method":".","upgrade":true}`, `null`, `{"method":null}`, `{"METHOD":"a.b"}`, "",
	} {
		f.Add([]byte(s), uint32(0))
		f.Add([]byte(s), uint32(1000))
	}
	s := &Server{cfg: Config{Snapshots: f.TempDir(), Version: "1"}, log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, b []byte, uid uint32) {
		c, err := decodeCall(b)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := send(w, s.answer(uid, c)); err != nil {
			t.Fatal(err)
		}
		messages := strings.Split(out.String(), "\x00")
		if len(messages) < 2 || messages[len(messages)-1] != "" {
			t.Fatalf("%q is answered by %q", b, out.String())
		}
		for i, m := range messages[:len(messages)-1] {
			var r reply
			if err := json.Unmarshal([]byte(m), &r); err != nil || r.Continues != (i < len(messages)-2) {
				t.Fatalf("%q is answered by %q", b, out.String())
			}
			if _, ok := recordOf(r); ok && r.Error == "" {
				t.Fatalf("%q found %s where there is no snapshot", b, m)
			}
		}
	})
}

func recordOf(r reply) (any, bool) {
	p, _ := r.Parameters.(map[string]any)
	record, ok := p["record"]
	return record, ok
}
