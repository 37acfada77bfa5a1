package story

import "time"

// seconds is what "within seconds" means to the story.
const seconds = 10 * time.Second

// ssh gives a command that a person runs as a grid user on a node. The inner
// command must have no single quotes.
func ssh(account, node, command string) string {
	return "ssh " + account + "@" + node + " '" + command + "'"
}

// enrol is a first login with a token, which sets a password.
func enrol(account, token, password string) Step {
	return Step{
		Run:   "printf '%s\\n' ${" + token + "} " + password + " | xos login " + account + " --token -",
		Shown: "xos login " + account + " --token -      # reads the token, then a new password",
		Want:  "logged in as " + account,
	}
}

func at(who string, s Step) Step {
	s.Who = who
	return s
}

// Administration makes VOs, users and memberships, on the core alone.
var Administration = []Step{
	{Say: "On the core, and nowhere else: VOs, users, memberships",
		Who: "root@core", Run: "xos vo create physics", Want: "created VO physics"},
	{Who: "root@core", Run: "xos user add alice --name 'Alice Liddell'", Want: `enrolment token.*: (\S+)`, Keep: "ALICE"},
	{Who: "root@core", Run: "xos vo member add physics alice --group higgs --role analyst", Want: "home volume home-physics-alice"},
	{Who: "root@core", Run: "xos user add bob", Want: `enrolment token.*: (\S+)`, Keep: "BOB"},
	{Who: "root@core", Run: "xos vo member add physics bob --group higgs --role analyst", Want: "home volume home-physics-bob"},
	{Who: "root@core", Run: "xos vo create chemistry", Want: "created VO chemistry"},
	{Who: "root@core", Run: "xos user add carol", Want: `enrolment token.*: (\S+)`, Keep: "CAROL"},
	{Who: "root@core", Run: "xos vo member add chemistry carol", Want: "home volume home-chemistry-carol"},
	{Who: "root@core", Run: "xos vo list", Want: `(?s)chemistry +1.*physics +2`},
}

// Credentials are got on the client.
var Credentials = []Step{
	func() Step {
		s := at("alice@client", enrol("alice@physics", "ALICE", "wonderland-1865"))
		s.Say = "On the client: one login, one short-lived credential"
		return s
	}(),
	{Who: "alice@client", Run: "xos whoami", Want: "(?s)alice@physics.*higgs.*analyst.*home-physics-alice"},
	{Who: "alice@client", Run: "echo wonderland-1865 | xos login alice@physics", Want: "logged in as alice@physics",
		Shown: "xos login alice@physics                  # asks for the password"},
	{Who: "alice@client", Run: "echo wrong | xos login alice@physics", Status: 77, Want: "wrong user, password or token"},
	at("bob@client", enrol("bob@physics", "BOB", "bobs-password")),
	at("carol@client", enrol("carol@chemistry", "CAROL", "carols-password")),
}

// Logins are by stock ssh; the home is the same everywhere.
var Logins = []Step{
	{Say: "Stock ssh, no password: a dynamic uid, VO groups, and her home",
		Who: "alice@client", Run: ssh("alice@physics", "node1", "id; pwd"),
		Want: `(?s)uid=\d+\(alice@physics\) gid=\d+\(alice@physics\) groups=.*\(physics\).*/home/xos/physics/alice`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", "id -Gn"), Want: `alice@physics .*physics:higgs|physics:higgs.* physics`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", "stat -f -c %T . && findmnt -no FSTYPE -T ."), Want: `fuse.xosfs`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", "echo written on $(hostname) > note; ls -l note"), Want: `alice@physics .* note`},
	{Who: "alice@client", Run: ssh("alice@physics", "node2", "cat note; stat -c %U note; id -u"), Want: `(?s)written on node1.alice@physics`},
}

// Jobs run wherever there is room.
var Jobs = []Step{
	{Say: "Jobs: live output, and the exit status is the command's",
		Who: "alice@client", Run: ssh("alice@physics", "node1", `xsub --name sim -- sh -c "echo job on \$(hostname); echo to stderr >&2; exit 7"; echo status $?`),
		Want: `(?s)job on node[12].*status 7`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", `xsub --node node2 -- sh -c "hostname; cat note; id -un; pwd"`),
		Want: `(?s)node2.*written on node1.*alice@physics.*/home/xos/physics/alice`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", `echo through the grid | xsub -- tr a-z A-Z`), Want: "THROUGH THE GRID"},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", `xsub -- no-such-program 2>&1; echo status $?`), Want: `(?s)no-such-program.*status 127`},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", `xsub --cpus 500 -- true; echo status $?`), Want: `(?s)status 69`},
}

// background is a shell session with a job in the background, handled like any
// local process. Its conditions are waited for, not slept for.
const background = `
until_() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 200 ] || { echo "never: $1"; exit 1; }; sleep 0.05; done; }
still() { a=$(cat tick); sleep 0.6; [ "$a" = "$(cat tick)" ]; }
rm -f tick
xsub --name sim --node node2 -- sh -c "i=0; while :; do i=\$((i+1)); echo \$i > tick.new; mv tick.new tick; sleep 0.1; done" &
P=$!
until_ "[ -s tick ]"
ps -u $USER -o comm= | grep -qx sim && echo "ps shows it as sim"
kill -STOP $P; until_ still && echo "stopped by kill -STOP"
xps | grep -q suspended && echo "xps says suspended"
kill -CONT $P; until_ "! still" && echo "goes on after kill -CONT"
kill $P; wait $P; echo "kill: status $?"
xsub --name sim --node node2 -- sleep 1000 &
P=$!
until_ "xps | grep -q running"
kill -9 $P; wait $P; echo "kill -9: status $?"
until_ "! xps | grep -q running" && echo "the remote job is gone too"
`

// Handling is by ps, kill and wait, and from any node by xps, xkill, xwait.
var Handling = []Step{
	{Say: "In the background: ps, kill -STOP, -CONT, kill, kill -9, wait",
		Who: "alice@client", Shown: "ssh alice@physics@node1    # a shell; the job runs on node2",
		Run: "ssh alice@physics@node1 'bash -s' <<'END'\n" + background + "END\n",
		Want: `(?s)ps shows it as sim.*stopped by kill -STOP.*xps says suspended.*goes on after kill -CONT.*` +
			`kill: status 143.*kill -9: status 137.*the remote job is gone too`, Not: "never:"},
	{Say: "From any node: xps, xkill, xwait",
		Who: "alice@client", Run: ssh("alice@physics", "node1", `nohup xsub --name long -- sleep 1000 </dev/null >long.out 2>&1 & for i in $(seq 100); do xps | grep -q running && break; sleep 0.1; done; xps`),
		Want: `(?m)^(\S+) +long +running`, Keep: "JOB"},
	{Who: "bob@client", Run: ssh("bob@physics", "node2", "xps; xkill ${JOB}; echo status $?"), Not: "long", Want: "status [1-9]"},
	{Who: "alice@client", Run: ssh("alice@physics", "node2", "xps; xkill ${JOB}; xwait ${JOB}; echo status $?"), Want: `(?s)long.*status 143`},
}

// Apart are the VOs, and local users from both.
var Apart = []Step{
	{Say: "Apart: another VO, and local users",
		Who: "alice@client", Run: ssh("alice@physics", "node1", `nohup sleep 987 >/dev/null 2>&1 & echo pid $!`), Want: `pid (\d+)`, Keep: "PID"},
	{Who: "carol@client", Run: ssh("carol@chemistry", "node1", "getent passwd alice@physics; echo status $?"), Want: "status 2"},
	{Who: "carol@client", Run: ssh("carol@chemistry", "node1", "ps aux; ls -d /proc/[0-9]*"), Not: `sleep 987|alice|/proc/${PID}\b`},
	{Who: "carol@client", Run: ssh("carol@chemistry", "node1", "kill -9 ${PID}; echo status $?"), Want: "status 1"},
	{Who: "carol@client", Run: ssh("carol@chemistry", "node1", "ls /home/xos/physics 2>&1; cat /home/xos/physics/alice/note"), Status: 1, Want: "physics.: No such file", Not: "written"},
	{Who: "root@node1", Run: "id guest >/dev/null 2>&1 || useradd -m guest; runuser -u guest -- getent passwd alice@physics; echo status $?", Want: "status 2",
		Shown: "runuser -u guest -- getent passwd alice@physics; echo status $?"},
	{Who: "root@node1", Run: "runuser -u guest -- kill -9 ${PID}; echo status $?", Want: "status 1"},
	{Who: "root@node1", Run: "kill -0 ${PID} && ps -o user:20=,args= -p ${PID}", Want: "alice@physics +sleep 987"},
}

// Removal ends everything within seconds, and says why.
var Removal = []Step{
	{Say: "Removed from the VO: no login, no session, and a reason",
		Who: "alice@client", Run: "ssh alice@physics@node2 'exec sleep 1000' >/dev/null 2>&1 &", Shown: "ssh alice@physics@node2 &"},
	{Who: "root@node2", Run: "xos session list", Want: "alice@physics", Within: seconds},
	{Who: "root@core", Run: "xos vo member remove physics alice --reason 'her project ended'", Want: "no longer a member"},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", "echo in"), Status: 255, Want: "Permission denied", Within: seconds},
	{Who: "root@node2", Run: "xos session list; pgrep -u alice@physics; true", Not: "alice@physics|^[0-9]", Within: seconds},
	{Who: "alice@client", Run: "xos explain alice@physics", Status: 77, Want: "(?s)refused.*her project ended"},
	{Who: "root@node1", Run: "xos explain alice@physics", Status: 77, Want: "her project ended"},
	{Who: "bob@client", Run: ssh("bob@physics", "node1", "echo bob is still in"), Want: "bob is still in"},
	{Who: "root@core", Run: "xos vo member add physics alice --group higgs --role analyst", Want: "alice is a member"},
	{Who: "alice@client", Run: "echo wonderland-1865 | xos login alice@physics", Want: "logged in", Shown: "xos login alice@physics"},
	{Who: "alice@client", Run: ssh("alice@physics", "node1", "cat note"), Want: "written on node1", Within: seconds},
}

// All is the whole story in its order.
func All() []Step {
	var all []Step
	for _, act := range [][]Step{Administration, Credentials, Logins, Jobs, Handling, Apart, Removal} {
		all = append(all, act...)
	}
	return all
}

// Again is what a grid that has seen the story can show once more.
func Again() []Step {
	again := append([]Step{}, Logins...)
	return append(append(again, Jobs...), Handling...)
}
