package apart

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xtreemos/xos/test/story"
	"github.com/xtreemos/xos/test/testbed"
)

// outcome is the prober's.
type outcome struct {
	Worked bool
	Detail string
}

// target is what the prober's victim told, and what it is changed to for those
// who look from elsewhere.
type target map[string]any

func (t target) String() string { return word(t) }

// word is something on the prober's command line.
func word(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

// ssh is the command line of a person on the client.
func ssh(account, option, command string) string {
	return "ssh -o BatchMode=yes " + option + " " + account + "@node1 '" + command + "'"
}

// victim starts one in alice's session, or in a job of hers, and waits until
// it is ready. It ends with the test.
func victim(ctx context.Context, t *testing.T, marker string, job bool) target {
	t.Helper()
	command := "exec " + prober + " victim " + marker + " physics"
	option := "-tt"
	if job {
		command, option = "exec xsub --name "+marker+" --node node1 -- "+prober+" victim "+marker+" physics", ""
	}
	life, cancel := context.WithCancel(ctx)
	cmd := node("client").Command(life, testbed.As("alice", ssh("alice@physics", option, command))...)
	return await(t, node("client"), cmd, cancel)
}

// unguarded starts a victim as alice, in the machine's own namespaces.
func unguarded(ctx context.Context, t *testing.T, marker string) target {
	t.Helper()
	life, cancel := context.WithCancel(ctx)
	cmd := node("node1").Command(life, "setpriv", "--reuid=alice@physics", "--regid=alice@physics", "--init-groups", "--",
		"env", "HOME=/home/xos/physics/alice", prober, "victim", marker, "physics")
	return await(t, node("node1"), cmd, cancel)
}

// await starts a victim and waits until it is ready.
func await(t *testing.T, at story.Machine, cmd *exec.Cmd, cancel func()) target {
	t.Helper()
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = time.Second
	if err := at.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); w.Close(); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	found := make(chan target, 1)
	go func() {
		scan := bufio.NewScanner(out)
		var said strings.Builder
		for scan.Scan() {
			if text, ok := strings.CutPrefix(strings.TrimSpace(scan.Text()), "TARGET "); ok {
				var v target
				if json.Unmarshal([]byte(text), &v) == nil {
					found <- v
				}
				io.Copy(io.Discard, out)
				return
			}
			fmt.Fprintln(&said, scan.Text())
		}
		found <- target{"said": said.String()}
	}()
	select {
	case v := <-found:
		if v["PID"] == nil {
			t.Fatalf("the victim did not start: %s", v["said"])
		}
		v["User"], v["Home"] = "alice@physics", "/home/xos/physics/alice"
		return v
	case <-time.After(60 * time.Second):
		t.Fatal("the victim did not start in time")
	}
	return nil
}

// attackTime is how long trying everything on one victim may take.
const attackTime = 2 * time.Minute

// attack runs a command that tries everything on each victim, and gives how that went.
func attack(ctx context.Context, t *testing.T, at story.Machine, user, command string, victims []target) []map[string]outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(victims))*attackTime)
	defer cancel()
	out, status, err := story.Run(ctx, at, user, command)
	var all []map[string]outcome
	if start := strings.Index(out, "[{"); err == nil && status == 0 && start >= 0 {
		err = json.NewDecoder(strings.NewReader(out[start:])).Decode(&all)
	}
	if err != nil || len(all) != len(victims) || slices.ContainsFunc(all, func(m map[string]outcome) bool { return len(m) == 0 }) {
		t.Fatalf("%s: %.120s: status %d (%v)\n%s", user, command, status, err, out)
	}
	return all
}

// attacker is the command line of one.
func attacker(victims []target) string {
	command := prober + " attack"
	for _, v := range victims {
		command += " " + v.String()
	}
	return command
}

// login attacks from an ssh session.
func login(ctx context.Context, t *testing.T, account string, victims ...target) []map[string]outcome {
	user, _, _ := strings.Cut(account, "@")
	return attack(ctx, t, node("client"), user, ssh(account, "", attacker(victims)), victims)
}

// inJob attacks from a job.
func inJob(ctx context.Context, t *testing.T, account string, victims ...target) []map[string]outcome {
	user, _, _ := strings.Cut(account, "@")
	return attack(ctx, t, node("client"), user, ssh(account, "", "xsub --node node1 -- "+attacker(victims)), victims)
}

// loggedIn attacks from a session of one of the machine's own users.
func loggedIn(ctx context.Context, t *testing.T, user string, victims ...target) []map[string]outcome {
	return attack(ctx, t, node("node1"), "root", "exec runuser -l "+user+" -c '"+attacker(victims)+"'", victims)
}

// outside attacks as somebody from the machine's own namespaces, by all ways or by those
// that are named.
func outside(ctx context.Context, t *testing.T, account string, only []string, v target) map[string]outcome {
	command := attacker([]target{v})
	if only != nil {
		command = prober + " retry " + word(only) + " " + v.String()
	}
	return attack(ctx, t, node("node1"), "root", "cd / && HOME=/ exec setpriv --reuid="+account+" --regid="+account+" --init-groups -- "+command, []target{v})[0]
}
