// Guest runs inside a virtual machine of the tests: it takes commands from its
// virtio serial ports, which root alone can open, and runs them as root.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xtreemos/xos/test/vm/wire"
)

// How long a port that nobody holds outside is left alone: to look is dear
// where all is emulated.
const (
	shortest = 100 * time.Millisecond
	longest  = 2 * time.Second
)

func main() {
	var work sync.WaitGroup
	for i := range wire.Ports {
		work.Go(func() {
			for wait := shortest; ; wait = min(2*wait, longest) {
				if err := serve("/dev/virtio-ports/" + wire.PortName(i)); err == nil {
					wait = shortest
				}
				time.Sleep(wait)
			}
		})
	}
	work.Wait()
}

// serve holds one conversation on a port.
func serve(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	conn := &port{File: file, in: bufio.NewReaderSize(file, 64<<10), gone: make(chan struct{})}
	defer conn.Close()
	if err := conn.greet(); err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	life, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := &http.Server{
		Handler:     http.HandlerFunc(run),
		Protocols:   &protocols,
		BaseContext: func(net.Listener) context.Context { return life },
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: wire.LongestFrame,
			MaxReceiveBufferPerConnection: 8 << 20, MaxReceiveBufferPerStream: 4 << 20},
	}
	err = server.Serve(&once{conn: conn, done: conn.gone})
	if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// port is a serial port as a connection.
type port struct {
	*os.File
	in   *bufio.Reader
	once sync.Once
	gone chan struct{}
}

func (p *port) Read(b []byte) (int, error) { return p.in.Read(b) }

func (p *port) Close() error {
	err := p.File.Close()
	p.once.Do(func() { close(p.gone) })
	return err
}

func (p *port) LocalAddr() net.Addr  { return address(p.Name()) }
func (p *port) RemoteAddr() net.Addr { return address(p.Name()) }

type address string

func (address) Network() string  { return "virtio" }
func (a address) String() string { return string(a) }

// greet waits for a greeting and answers it. A port that nobody holds outside
// reads as ended.
func (p *port) greet() error {
	for {
		line, err := p.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if at := strings.Index(string(line), wire.Hello); at >= 0 {
			_, err := fmt.Fprint(p, string(line[at+len(wire.Hello):]))
			return err
		}
	}
}

// once is a listener of one connection; it ends with it.
type once struct {
	conn net.Conn
	done <-chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	if conn := o.conn; conn != nil {
		o.conn = nil
		return conn, nil
	}
	<-o.done
	return nil, io.EOF
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return address("port") }
