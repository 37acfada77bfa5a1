package guard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/xtreemos/xos/nodeguard/guard"
)

// What the actor does a known number of times, from many threads.
const (
	workers = 8
	rounds  = 25
	payload = 700
	// ipAndUDP is what each datagram has besides.
	ipAndUDP = 20 + 8
	disk     = 8 << 20
)

// execMany executes programs.
func execMany(string) int {
	return together(func(int) error {
		for range rounds {
			if err := exec.Command(os.Args[0], "actor", "nothing", "-", "-").Run(); err != nil {
				return err
			}
		}
		return nil
	})
}

// openMany opens a file so many times in each worker, and one that is not there.
func openMany(text string) int {
	return together(func(int) error {
		times, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		for range times {
			if err := opens("/dev/null", os.O_RDONLY); err != nil {
				return err
			}
			if err := opens("/dev/null/none", os.O_RDONLY); err == nil {
				return errors.New("what is not there was opened")
			}
		}
		return nil
	})
}

// sendMany sends datagrams, each worker through a socket of its own.
func sendMany(to string) int {
	return together(func(int) error {
		c, err := net.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		for range rounds {
			if _, err := c.Write(make([]byte, payload)); err != nil {
				return err
			}
		}
		return nil
	})
}

// knock tries what it expects to be refused.
func knock(at string) int {
	return together(func(int) error {
		for range rounds {
			if c, err := net.DialTimeout("tcp4", at, 5*time.Second); err == nil {
				c.Close()
				return fmt.Errorf("%s was reached", at)
			}
		}
		return nil
	})
}

// writeMuch writes files and waits to be told to end, with what it wrote on
// the disk.
func writeMuch(dir string) int {
	status := together(func(n int) error {
		f, err := os.Create(filepath.Join(dir, "file"+strconv.Itoa(n)))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, disk/workers)); err != nil {
			return err
		}
		return f.Sync()
	})
	fmt.Println("written")
	io.Copy(io.Discard, os.Stdin)
	return status
}

func together(do func(n int) error) int {
	var group sync.WaitGroup
	errs := make([]error, workers)
	for n := range workers {
		group.Go(func() { errs[n] = do(n) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// readOn is a guard that reads figures until it is killed.
func readOn(config string) int {
	var cfg guard.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		fmt.Println(err)
		return 1
	}
	g, err := guard.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("reading")
	for {
		if _, err := g.Usage(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
}
