package guard_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play a user's process: see act.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "actor" {
		os.Exit(act(os.Args[2:]))
	}
	code := m.Run()
	letGo()
	os.Remove(programAt)
	os.Exit(code)
}

// act listens ("listen NETWORK ADDRESS": prints its address, ends with stdin)
// connects ("connect NETWORK ADDRESS": prints "ok" or the error), or makes a
// socket ("socket PROTOCOL -": prints the error).
func act(args []string) int {
	verb, network, address := args[0], args[1], args[2]
	switch verb {
	case "prey":
		return leaveOpen(network)
	case "hunt":
		return huntAll(network)
	case "stalk":
		return stalk(network)
	case "besiege":
		return besiegeUntil(network)
	case "flood":
		return floodOf(network, address)
	case "pace":
		return pace(network)
	case "recycles":
		return recycle(network)
	case "headless":
		return goHeadless(network)
	case "nothing":
		return 0
	case "execs":
		return execMany(network)
	case "opens":
		return openMany(network)
	case "sends":
		return sendMany(network)
	case "knocks":
		return knock(network)
	case "writes":
		return writeMuch(network)
	case "reads":
		return readOn(network)
	case "userns":
		return userns()
	case "use":
		if err := opens(network, os.O_RDONLY); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	case "repeat":
		return repeat(network, address)
	case "linger":
		return linger(network)
	case "survives":
		return survive(network)
	case "owner":
		return ownListener(network)
	case "batter":
		return batter(network, address)
	}
	if verb == "socket" {
		protocol, _ := strconv.Atoi(network)
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, protocol)
		fmt.Println(err)
		return 0
	}
	if verb == "connect" && network == "fastopen" {
		if err := fastOpen(address); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	if verb == "connect" {
		c, err := net.DialTimeout(network, address, 5*time.Second)
		if err == nil {
			_, err = c.Write([]byte("x"))
			c.Close()
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("ok")
		return 0
	}
	var at net.Addr
	var err error
	if strings.HasPrefix(network, "udp") {
		var c net.PacketConn
		if c, err = net.ListenPacket(network, address); err == nil {
			at = c.LocalAddr()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen(network, address); err == nil {
			at = l.Addr()
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					c.Close()
				}
			}()
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(at)
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// fastOpen connects by sending (TCP Fast Open), without a connect().
func fastOpen(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}
