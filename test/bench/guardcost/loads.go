package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// load is whole work as people do it: a shell command in a directory of its
// own. What need names must be installed, or the load is left out.
type load struct{ name, need, before, command string }

var loads = []load{
	{"tar", "tar", "", "tar -cf a.tar -C /usr/share perl5 zoneinfo; mkdir x && tar -xf a.tar -C x && rm -rf x a.tar"},
	{"find", "find", "", "find /usr /etc -xdev -newer /etc/hostname -perm -u+x >/dev/null 2>&1 || true"},
	{"script", "sh", "", "i=0; while [ $i -lt 60 ]; do /bin/true; x=$(echo $i | sed s/1/2/); i=$((i + 1)); done"},
	{"compile", "tcc", "for i in 0 1 2 3 4 5 6 7 8 9; do printf '#include <stdio.h>\\n#include <stdlib.h>\\n#include <string.h>\\nint f%d(int x) { char b[99]; snprintf(b, 99, \"%%d\", x); return atoi(b); }\\n' $i >f$i.c; done; echo 'int main(void) { return 0; }' >main.c",
		"for f in *.c; do tcc -c $f || exit 1; done; tcc -o all *.o && ./all && rm -f all *.o"},
	{"git", "git", "export HOME=$PWD; git init -q r && cd r && cp -r /usr/share/perl5 . && git add . && git -c user.name=a -c user.email=a@b commit -qm a",
		"export HOME=$PWD; git clone -q r c && git -C c status --short && rm -rf c"},
	{"sqlite", "sqlite3", "", "{ echo 'create table t(a integer primary key, b text);'; i=0; while [ $i -lt 40 ]; do echo \"insert into t(b) values('row $i');\"; i=$((i + 1)); done; echo 'select count(*) from t;'; } | sqlite3 d >/dev/null && rm d"},
}

// carry does each load once and prints milliseconds by load.
func carry() error {
	found := map[string][]float64{}
	for _, l := range loads {
		if _, err := exec.LookPath(l.need); err != nil {
			continue
		}
		if _, err := os.Stat(l.name); err != nil {
			if err := os.Mkdir(l.name, 0o755); err != nil {
				return err
			}
			if err := shell(l.name, l.before); err != nil {
				return err
			}
		}
		began := time.Now()
		if err := shell(l.name, l.command); err != nil {
			return err
		}
		found[l.name] = append(found[l.name], float64(time.Since(began).Microseconds())/1000)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func shell(dir, command string) error {
	cmd := exec.Command("/bin/sh", "-ec", command+"\n")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
