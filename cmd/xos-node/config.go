package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/guard"
	"github.com/xtreemos/xos/session"
	"github.com/xtreemos/xos/session/account"
	"github.com/xtreemos/xos/vom"
	"github.com/xtreemos/xos/vom/machine"
	"github.com/xtreemos/xos/vom/vops"
)

// config is /etc/xos/node.toml. Every field has a default.
type config struct {
	// Core is host:port of the core's API; "xos up" writes it. Bus is that of
	// its bus; empty: port 7442 of the core's host.
	Core string `toml:"core"`
	Bus  string `toml:"bus"`
	// Name of this machine in the grid. It is the one in its certificate;
	// where one is given here, the certificate must have it.
	Name string `toml:"name"`
	// Listen is where other machines reach the node service, Advertise the
	// host:port they are told; empty: the address that reaches the core.
	Listen    string `toml:"listen"`
	Advertise string `toml:"advertise"`
	// VOs are those served; "*" is every one. Banned are accounts
	// ("alice@physics") and users ("alice") that are not let in.
	VOs    []xos.VOName `toml:"vos"`
	Banned []string     `toml:"banned"`
	// Offline bounds how long this machine lets people in without news from the
	// core, where the core and the VO allow more; "0s": as long as they do.
	Offline duration `toml:"offline"`
	// Policy is a file of Cedar policies that forbid; none if empty.
	Policy string `toml:"policy"`
	// Isolation is a file that says what VOs may share on this machine if both
	// want it, and which devices they may have; they share nothing if empty. It is
	// read again when it changes.
	Isolation string `toml:"isolation"`
	// Shell of grid users.
	Shell string `toml:"shell"`
	// Linger is how long a home stays mounted after its last use.
	Linger duration `toml:"linger"`
	// Idle is how long an account may stay unused until its uid is quarantined;
	// "0s": it keeps it while it has access. Quarantine is how long a uid rests
	// at least, until a search of this machine proves that nothing is left of it
	// and it is free; "0s": for ever, no uid is given again.
	Idle       duration `toml:"idle"`
	Quarantine duration `toml:"quarantine"`
	// Homes is the directory of homes.
	Homes string `toml:"homes"`
	// SiteKey is a file that the machines of a site may share, so that they
	// mostly give an account the same uid (with the same subids); empty: a key
	// of this machine's own.
	SiteKey string `toml:"site_key"`
	// SubIDs are the ids that containers of grid users may have beside the
	// user's own, "FIRST-LAST" within 1879048192-2147483646, in ranges of 65536
	// that begin at a multiple of that: each account that logs in gets one. They
	// are served to newuidmap and its like where nsswitch.conf has the line
	// "subid: xos"; see xos-node(8). Empty: nobody gets any.
	SubIDs string `toml:"subids"`
	// State must not be lost; Run need not outlive a boot; Trust is where the
	// grid's public keys are for sshd and others.
	State string `toml:"state"`
	Run   string `toml:"run"`
	Trust string `toml:"trust"`
	// AuditKeep is how long entries of this machine's audit log are kept at
	// least, "0s" for ever; AuditJournal tells the system's journal of each.
	AuditKeep    duration `toml:"audit_keep"`
	AuditJournal bool     `toml:"audit_journal"`
	// Supervisor is the program that runs a job.
	Supervisor string `toml:"supervisor"`
	// VOCPUs, VOMemory, VOProcesses and VOIO are what all jobs of one VO may use
	// together: an amount ("1.5" processors, "16G" of memory, "500" processes,
	// "50M" bytes a second from and to each disk), a part of what the machine has
	// ("75%"; not of VOIO), or "" for no bound.
	VOCPUs      string `toml:"vo_cpus"`
	VOMemory    string `toml:"vo_memory"`
	VOProcesses string `toml:"vo_processes"`
	VOIO        string `toml:"vo_io"`
	// LoginCPUs, LoginMemory, LoginProcesses and LoginIO are what all sessions of
	// one account may use together.
	LoginCPUs      string `toml:"login_cpus"`
	LoginMemory    string `toml:"login_memory"`
	LoginProcesses string `toml:"login_processes"`
	LoginIO        string `toml:"login_io"`
	// Metrics is a unix socket, for root alone, on which what VOs and jobs use is
	// told in the format of Prometheus; none if empty.
	Metrics string `toml:"metrics"`
}

// duration is written as in "12h" or "90s".
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

func defaults() config {
	return config{
		Core: "localhost:7443", Listen: ":7444", VOs: []xos.VOName{"*"}, Shell: "/bin/bash", Linger: duration{time.Minute},
		Idle: duration{2160 * time.Hour}, Quarantine: duration{720 * time.Hour},
		AuditKeep: duration{8760 * time.Hour}, AuditJournal: true,
		Homes: "/home/xos", State: "/var/lib/xos/node", Run: "/run/xos", Trust: machine.TrustDir, Supervisor: "/usr/libexec/xos/xos-job",
		VOMemory: "75%", VOProcesses: "50%", LoginMemory: "50%", LoginProcesses: "20%",
	}
}

// readConfig reads a file over the defaults; one that is not there changes
// nothing, and a word that means nothing is an error.
func readConfig(path string) (config, error) {
	cfg := defaults()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cfg, xos.Errorf(xos.Invalid, "reading the configuration: %w", err)
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&cfg); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return cfg, xos.Errorf(xos.Invalid, "%s has settings that xos-node does not know:\n%s", path, strict.String())
		}
		return cfg, xos.Errorf(xos.Invalid, "reading %s: %w", path, err)
	}
	cfg.Core = machine.Address(cfg.Core)
	if cfg.Bus == "" {
		host, _, err := net.SplitHostPort(cfg.Core)
		if err != nil {
			return cfg, xos.Errorf(xos.Invalid, "core = %q is no host:port", cfg.Core)
		}
		cfg.Bus = net.JoinHostPort(host, "7442")
	}
	return cfg, cfg.validate()
}

func (c config) validate() error {
	if c.Name != "" && !xos.ValidName(c.Name) {
		return xos.Errorf(xos.Invalid, "name = %q cannot be a node's name", c.Name)
	}
	for key, address := range map[string]string{"core": c.Core, "bus": c.Bus, "listen": c.Listen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return xos.Errorf(xos.Invalid, "%s = %q is no host:port", key, address)
		}
	}
	if c.Advertise != "" {
		if host, _, err := net.SplitHostPort(c.Advertise); err != nil || host == "" {
			return xos.Errorf(xos.Invalid, "advertise = %q is no host:port", c.Advertise)
		}
	}
	for _, vo := range c.VOs {
		if vo != "*" && (!xos.ValidName(string(vo)) || xos.ReservedName(string(vo))) {
			return xos.Errorf(xos.Invalid, "vos has %q, which cannot be a VO's name", string(vo))
		}
	}
	for _, name := range c.Banned {
		if _, err := xos.ParseAccount(name); err != nil && !xos.ValidName(name) {
			return xos.Errorf(xos.Invalid, "banned has %q, which is neither an account nor a user", name)
		}
	}
	for key, path := range map[string]string{"shell": c.Shell, "homes": c.Homes, "state": c.State, "run": c.Run, "trust": c.Trust, "supervisor": c.Supervisor} {
		if !filepath.IsAbs(path) {
			return xos.Errorf(xos.Invalid, "%s = %q is no absolute path", key, path)
		}
	}
	if c.Metrics != "" && !filepath.IsAbs(c.Metrics) {
		return xos.Errorf(xos.Invalid, "metrics = %q is no absolute path of a socket", c.Metrics)
	}
	if c.Linger.Duration < time.Second {
		return xos.Errorf(xos.Invalid, "linger = %v is too short", c.Linger)
	}
	// News are asked for every 10 s.
	if c.Offline.Duration != 0 && c.Offline.Duration < 30*time.Second {
		return xos.Errorf(xos.Invalid, "offline = %v is too short: at least 30s, or 0s", c.Offline)
	}
	if c.Idle.Duration != 0 && c.Idle.Duration < 24*time.Hour {
		return xos.Errorf(xos.Invalid, "idle = %v is too short: at least 24h, or 0s", c.Idle)
	}
	if c.Quarantine.Duration != 0 && c.Quarantine.Duration < time.Hour {
		return xos.Errorf(xos.Invalid, "quarantine = %v is too short: at least 1h, or 0s", c.Quarantine)
	}
	if pool, err := account.ParsePool(c.SubIDs); err != nil {
		return xos.Errorf(xos.Invalid, "subids: %w", err)
	} else if err := pool.Check(session.FirstID, session.LastID); err != nil {
		return xos.Errorf(xos.Invalid, "subids: %w", err)
	}
	if c.AuditKeep.Duration != 0 && c.AuditKeep.Duration < 24*time.Hour {
		return xos.Errorf(xos.Invalid, "audit_keep = %v is too short: at least 24h, or 0s", c.AuditKeep)
	}
	if _, _, err := c.ceilings(); err != nil {
		return err
	}
	if _, err := c.siteIsolation(); err != nil {
		return err
	}
	_, err := c.decider(func() vom.Bundle { return vom.Bundle{} }, nil)
	return err
}

// ceilings are those of each VO's jobs and of each account's logins.
func (c config) ceilings() (jobs, logins guard.Ceilings, err error) {
	machine, err := guard.ThisMachine()
	if err != nil {
		return jobs, logins, err
	}
	if jobs, err = (guard.Portions{CPUs: c.VOCPUs, Memory: c.VOMemory, Processes: c.VOProcesses, IO: c.VOIO}).On(machine); err != nil {
		return jobs, logins, err
	}
	logins, err = guard.Portions{CPUs: c.LoginCPUs, Memory: c.LoginMemory, Processes: c.LoginProcesses, IO: c.LoginIO}.On(machine)
	return jobs, logins, err
}

// decider makes the machine's part of policy. isolation tells its level.
func (c config) decider(bundle func() vom.Bundle, isolation func() string) (*vops.Decider, error) {
	site := vops.Site{VOs: c.VOs, Banned: c.Banned, Isolation: isolation}
	if c.Policy != "" {
		data, err := os.ReadFile(c.Policy)
		if err != nil {
			return nil, xos.Errorf(xos.Invalid, "reading the site's policy: %w", err)
		}
		site.Policy = string(data)
	}
	return vops.New(bundle, site)
}
