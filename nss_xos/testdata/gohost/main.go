// Gohost is a Go program whose os/user goes through the C library: many
// goroutines look names up, start programs and take signals meanwhile.
// usage: gohost NAME COUNT
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	name := os.Args[1]
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	signals := make(chan os.Signal, 1000)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGUSR1)
	var work sync.WaitGroup
	for i := range 32 {
		work.Go(func() {
			for n := range count {
				if err := look(name); err != nil {
					fmt.Println(err)
					return
				}
				if i < 4 && n%10 == 0 {
					syscall.Kill(os.Getpid(), syscall.SIGUSR1)
					if err := exec.Command("true").Run(); err != nil {
						fmt.Println("a child:", err)
					}
				}
			}
		})
	}
	work.Wait()
	if len(signals) == 0 {
		fmt.Println("no signal arrived")
	}
}

func look(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	if again, err := user.LookupId(u.Uid); err != nil || again.Username != name {
		return fmt.Errorf("uid %s is %v, %v", u.Uid, again, err)
	}
	groups, err := u.GroupIds()
	if err != nil || len(groups) < 2 {
		return fmt.Errorf("groups of %s: %q, %v", name, groups, err)
	}
	if _, err := user.Lookup("mallory@physics"); err == nil {
		return fmt.Errorf("mallory@physics exists")
	}
	return nil
}
