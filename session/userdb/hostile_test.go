package userdb_test

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestRootHostilePeers: whoever sends too much, nothing, or no varlink is hung up
// on; who opens all the connections that he may shuts out nobody else.
func TestRootHostilePeers(t *testing.T) {
	s := newStage(t)
	long := question("GetUserRecord", `"userName":"`+strings.Repeat("a", 5000)+`"`)
	for _, message := range []string{"", "x", "{}", "[]", "null", `{"method":5}`, `{"method":"a","upgrade":true}`, `{"method":"a","parameters":[]}`,
		strings.Repeat("[", 4000), long, "{\"method\":\"a\"", strings.Repeat("x", 1<<20)} {
		if got, err := exchange(s.socket, message); err == nil {
			t.Errorf("%.40q is answered: %s", message, got)
		}
	}
	// One message in pieces, and two at once, the first of which wants no reply.
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := question("GetUserRecord", `"userName":"alice@physics"`)
	for _, piece := range []string{q[:10], q[10:] + "\x00" + strings.Replace(q, `"more"`, `"oneway"`, 1) + "\x00" + q[:5], q[5:] + "\x00"} {
		if _, err := c.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	want := []byte(strings.Repeat(aliceRecord()+"\x00", 2))
	got := make([]byte, 0, len(want)+1)
	c.SetDeadline(time.Now().Add(2 * time.Second))
	for len(got) < len(want) {
		b := make([]byte, len(want)+1-len(got))
		n, err := c.Read(b)
		if got = append(got, b[:n]...); err != nil {
			break
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	// Root's connections are many; but they end, too.
	var held []net.Conn
	for range 600 {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	if got := s.as(t, alice, q)[0]; got != aliceRecord() {
		t.Errorf("root has all connections, and alice gets %q", got)
	}
	refused := 0
	for _, c := range held[512:] {
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			refused++
		}
	}
	if refused != 600-512 {
		t.Errorf("of the last %d of 600 connections %d were refused", 600-512, refused)
	}
	for _, c := range held {
		c.Close()
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := exchange(s.socket, q)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("root is not heard again:", err)
		}
	}
}
