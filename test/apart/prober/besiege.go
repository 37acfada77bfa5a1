package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// besiege makes a file, and tries the named attempts over and over until that is
// gone; it tells how often, and what ever worked.
func besiege(names string, t Target, file string) error {
	all := map[string]func(Target) error{}
	for _, room := range rooms {
		for name, try := range room {
			all[name] = try
		}
	}
	list := strings.Split(names, ",")
	for _, name := range list {
		if all[name] == nil {
			return fmt.Errorf("there is no attempt %q", name)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	said := struct {
		Tries  int
		Worked map[string]int
	}{Worked: map[string]int{}}
	for stat(file) == nil {
		for _, name := range list {
			said.Tries++
			if all[name](t) == nil {
				said.Worked[name]++
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}
