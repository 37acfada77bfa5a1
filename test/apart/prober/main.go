// Command prober is both sides of the isolation test: "prober victim" leaves
// open what a careless user might, and waits; "prober attack" tries each way to
// see it or to reach it.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Target is what a victim tells of itself: the attacker shall not have to guess.
type Target struct {
	PID, TID, UID   int
	User, VO        string
	PTS             string // "" without a terminal
	Marker          string // in its command line and its names
	Key             int
	TCP4, TCP6, UDP int
	// Ports of sockets of other kinds, 0 where there is none.
	Vsock, SMC, Usersock, Route int
	Memory                      int // a descriptor's number
	HandleType                  int32
	Handle                      []byte // of her file in /var/tmp
	Home                        string
}

// Outcome is how one attempt went.
type Outcome struct {
	Worked bool
	Detail string
}

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "victim":
		fail(victim(os.Args[2], os.Args[3]))
	case len(os.Args) > 2 && os.Args[1] == "attack":
		var all []map[string]Outcome
		answers = map[string]answer{}
		for _, text := range os.Args[2:] {
			t, err := target(text)
			fail(err)
			all = append(all, attack(t, nil))
		}
		fail(json.NewEncoder(os.Stdout).Encode(all))
	case len(os.Args) == 4 && os.Args[1] == "retry":
		var names []string
		data, err := base64.StdEncoding.DecodeString(os.Args[2])
		if err == nil {
			err = json.Unmarshal(data, &names)
		}
		fail(err)
		t, err := target(os.Args[3])
		fail(err)
		fail(json.NewEncoder(os.Stdout).Encode([]map[string]Outcome{attack(t, names)}))
	case len(os.Args) == 5 && os.Args[1] == "besiege":
		t, err := target(os.Args[3])
		fail(err)
		fail(besiege(os.Args[2], t, os.Args[4]))
	case len(os.Args) == 4 && os.Args[1] == "inner":
		t, err := target(os.Args[3])
		fail(err)
		if err := inner(os.Args[2], t); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: prober victim MARKER VO | attack TARGET... | retry NAMES TARGET | besiege NAMES TARGET FILE | inner WHAT TARGET")
		os.Exit(64)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "prober:", err)
		os.Exit(1)
	}
}

func target(text string) (t Target, err error) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	return t, err
}

// answers are what commands printed, by their words: those who are looked for were all
// there before the first command. It is nil where what a command prints may change.
var (
	answers map[string]answer
	asking  sync.Mutex
)

type answer struct {
	out []byte
	err error
}

// said is what a command prints.
func said(name string, args ...string) ([]byte, error) {
	words := fmt.Sprintf("%q", append([]string{name}, args...))
	asking.Lock()
	a, known := answers[words]
	asking.Unlock()
	if !known {
		a.out, a.err = exec.Command(name, args...).CombinedOutput()
		asking.Lock()
		if answers != nil {
			answers[words] = a
		}
		asking.Unlock()
	}
	return a.out, a.err
}

// patience is how long one attempt may take: lsof takes 2 s on an emulated machine of
// which other tests leave it the half.
const patience = 30 * time.Second

// rooms have all attempts.
var rooms = []map[string]func(Target) error{visible, signals, memory, ipc, network, names, system, kinds, handed}

// attack tries everything, each by itself, or only what is named.
func attack(t Target, only []string) map[string]Outcome {
	all := map[string]Outcome{}
	for _, room := range rooms {
		for name, try := range room {
			if only != nil && !slices.Contains(only, name) {
				continue
			}
			done := make(chan error, 1)
			go func() {
				defer func() {
					if p := recover(); p != nil {
						done <- fmt.Errorf("panic: %v", p)
					}
				}()
				done <- try(t)
			}()
			var err error
			select {
			case err = <-done:
			case <-time.After(patience):
				err = fmt.Errorf("no answer in %v", patience)
			}
			o := Outcome{Worked: err == nil}
			if err != nil {
				o.Detail = err.Error()
			}
			all[name] = o
		}
	}
	return all
}
