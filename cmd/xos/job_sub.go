package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xtreemos/xos"
	xosv1 "github.com/xtreemos/xos/api/xos/v1"
)

// submission is the flags of xsub.
type submission struct {
	name, node, memory, directory string
	cpus                          float64
	env, require                  []string
	tty                           bool
}

func newSubCommand() *cobra.Command {
	var s submission
	c := &cobra.Command{
		Use:   "sub [flags] [--] COMMAND [ARGUMENT...]",
		Short: "Run a command wherever in the grid there is room (xsub)",
		Long: `Run a command on a machine of the grid that matches. This process then stands for
the job, under its name: what is read, written, signalled, stopped, waited for
here is so there. Its exit status is the command's; 127 if there is no such
command, 126 if it cannot be executed.

--require may be repeated: cpus>=4, memory_free>=8G, load<=2, arch=amd64,
os=debian|ubuntu, isolation=A. The attributes are those that machines publish.`,
		Example: `  xsub --name sim -- sh -c 'make && ./sim'
  xsub --cpus 4 --memory 8G ./analyse data.root &
  xsub --tty bash`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.request(args)
			if err != nil {
				return err
			}
			if _, err := gate(); err != nil {
				return err
			}
			return becomeShadow(r, jsonOutput(cmd))
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringVar(&s.name, "name", "", "name of the job (default: the command's)")
	f.StringVar(&s.node, "node", "", "run on this machine")
	f.Float64Var(&s.cpus, "cpus", 0, "use at most this many processors, on a machine that has them")
	f.StringVar(&s.memory, "memory", "", "use at most this much memory (512M, 8G), on a machine that has it")
	f.StringVar(&s.directory, "directory", "", "work in this directory (default: this one if it is in your home, else home)")
	f.StringArrayVar(&s.env, "env", nil, "set NAME=value, or pass on NAME as it is here")
	f.StringArrayVar(&s.require, "require", nil, "run only where this holds")
	f.BoolVar(&s.tty, "tty", false, "give the job a terminal")
	return c
}

// request puts the flags into a request.
func (s submission) request(argv []string) (*xosv1.SubmitRequest, error) {
	spec := &xosv1.JobSpec{Name: s.name, Argv: argv, Node: s.node, Limits: map[string]int64{}}
	if spec.Name == "" {
		spec.Name = filepath.Base(argv[0])
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	spec.Umask = uint32(umask)
	if s.cpus != 0 {
		spec.Limits["cpus"] = int64(s.cpus * 1000)
	}
	if s.memory != "" {
		n, err := parseAmount(s.memory)
		if err != nil {
			return nil, err
		}
		spec.Limits["memory"] = int64(n)
	}
	for _, r := range s.require {
		c, err := parseRequirement(r)
		if err != nil {
			return nil, err
		}
		spec.Conditions = append(spec.Conditions, c)
	}
	if spec.Directory = s.directory; spec.Directory == "" {
		spec.Directory = directoryInHome()
	} else if abs, err := filepath.Abs(s.directory); err == nil {
		spec.Directory = abs
	}
	env := passedOn(os.Environ())
	for _, e := range s.env {
		if !strings.Contains(e, "=") {
			e += "=" + os.Getenv(e)
		}
		env = append(env, e)
	}
	spec.Env = lastWins(env)
	if s.tty {
		if !isTerminal(0) || !isTerminal(1) {
			return nil, xos.Errorf(xos.Invalid, "--tty needs a terminal for input and output")
		}
	}
	return &xosv1.SubmitRequest{Spec: spec, Stdin: s.tty || hasInput(), Tty: s.tty}, nil
}

// directoryInHome is the working directory if it is in the home, which is the
// same everywhere; "" for the home itself if not.
func directoryInHome() string {
	dir, err := os.Getwd()
	home := os.Getenv("HOME")
	if err != nil || home == "" || dir != home && !strings.HasPrefix(dir, home+"/") {
		return ""
	}
	return dir
}

// ofThisMachine are variables that tell of this machine or login, not of the user's
// wishes.
var ofThisMachine = regexp.MustCompile(`^(HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|_|MAIL|TMPDIR|HOSTNAME|DISPLAY|WINDOWID|(XDG|SSH|DBUS|XOS|SYSTEMD|INVOCATION|JOURNAL|NOTIFY|LISTEN|TMUX|STY)(_.*)?)=`)

func passedOn(environ []string) (env []string) {
	for _, e := range environ {
		if !ofThisMachine.MatchString(e) && strings.IndexByte(e, '=') > 0 {
			env = append(env, e)
		}
	}
	return env
}

func lastWins(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// hasInput reports whether there is anything to be read here.
func hasInput() bool {
	var st, null unix.Stat_t
	if unix.Fstat(0, &st) != nil {
		return false
	}
	return unix.Stat(os.DevNull, &null) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != null.Rdev
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// parseAmount reads 4, 1.5, 512M, 8G, 8GiB (binary units).
func parseAmount(s string) (float64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(s, "iB"), "B")
	factor := 1.0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGTP", number[n-1]); i >= 0 {
			number = number[:n-1]
			for ; i >= 0; i-- {
				factor *= 1024
			}
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f < 0 || f*factor > 1<<60 {
		return 0, xos.Errorf(xos.Invalid, "%.40q is no amount: want a number, with K, M, G or T", s)
	}
	return f * factor, nil
}

var requirement = regexp.MustCompile(`^([a-z][a-z0-9_.-]*)(>=|<=|=)(.+)$`)

// parseRequirement reads "cpus>=4" or "os=debian|ubuntu".
func parseRequirement(s string) (*xosv1.Condition, error) {
	m := requirement.FindStringSubmatch(s)
	if m == nil {
		return nil, xos.Errorf(xos.Invalid, "%.60q is no requirement", s).WithHint("--require 'cpus>=4', --require arch=amd64")
	}
	c := &xosv1.Condition{Attribute: m[1]}
	n, err := parseAmount(m[3])
	switch {
	case m[2] == "=" && (err != nil || textual[m[1]]):
		c.Texts = strings.Split(m[3], "|")
		return c, nil
	case err != nil:
		return nil, err
	}
	if m[2] != "<=" {
		c.Min = &n
	}
	if m[2] != ">=" {
		c.Max = &n
	}
	return c, nil
}

// textual attributes may look like numbers.
var textual = map[string]bool{"os_version": true, "kernel": true, "node": true, "arch": true, "os": true, "isolation": true}

// shadowEnv says, by the number of a descriptor, what the process stands for.
const shadowEnv = "XOS_SHADOW"

// shadowRequest is what becomeShadow leaves for the process it becomes.
type shadowRequest struct {
	Request json.RawMessage
	JSON    bool
	request *xosv1.SubmitRequest
}

// becomeShadow executes this program anew with the job's name and arguments,
// so that ps shows the job.
func becomeShadow(r *xosv1.SubmitRequest, asJSON bool) error {
	data, err := protojson.Marshal(r)
	if err == nil {
		data, err = json.Marshal(shadowRequest{Request: data, JSON: asJSON})
	}
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("xsub", 0)
	if err != nil {
		return xos.Errorf(xos.Internal, "keeping the request: %w", err)
	}
	f := os.NewFile(uintptr(fd), "xsub")
	if _, err := f.WriteAt(data, 0); err != nil {
		return xos.Errorf(xos.Internal, "keeping the request: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{r.Spec.Name}, r.Spec.Argv[1:]...)
	err = unix.Exec(self, argv, append(os.Environ(), shadowEnv+"="+strconv.Itoa(fd)))
	return xos.Errorf(xos.Internal, "executing %s anew: %w", self, err)
}

// takeShadowRequest gives what this process shall stand for, if anything.
func takeShadowRequest() (r shadowRequest, ok bool) {
	value, set := os.LookupEnv(shadowEnv)
	if !set {
		return r, false
	}
	os.Unsetenv(shadowEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return r, false
	}
	f := os.NewFile(uintptr(fd), "xsub")
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > 1<<20 {
		return r, false
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return r, false
	}
	r.request = &xosv1.SubmitRequest{}
	err = json.Unmarshal(data, &r)
	if err = errors.Join(err, protojson.Unmarshal(r.Request, r.request)); err != nil || len(r.request.GetSpec().GetArgv()) == 0 {
		return r, false
	}
	// What ps shows beside the arguments, of the whole process.
	os.WriteFile("/proc/self/comm", []byte(r.request.Spec.Name), 0)
	return r, true
}
