package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/vom"
)

// config is /etc/xos/core.toml. Every field has a default.
type config struct {
	// Name of this core as a node; the host's name.
	Name string `toml:"name"`
	// State is the directory of everything that must not be lost.
	State string `toml:"state"`
	// Listen, ListenBus and ListenMRC are addresses, "host:port"; an empty
	// host is all addresses.
	Listen    string `toml:"listen"`
	ListenBus string `toml:"listen_bus"`
	ListenMRC string `toml:"listen_mrc"`
	// Socket is the administrators' unix socket, where the service manager
	// does not pass one.
	Socket string `toml:"socket"`
	// UserValidity is that of users' certificates, at most "12h".
	UserValidity duration `toml:"user_validity"`
	// DelegatedValidity is that of the credentials by which machines act for
	// users, which they renew until the user's certificate ends. A VO's policy
	// may want less.
	DelegatedValidity duration `toml:"delegated_validity"`
	// Offline is how long machines may decide without news from the core.
	Offline duration `toml:"offline"`
	// AuditKeep is how long entries of the audit log are kept at least, "0s"
	// for ever; AuditJournal tells the system's journal of each.
	AuditKeep    duration `toml:"audit_keep"`
	AuditJournal bool     `toml:"audit_journal"`
	// Etcd are the endpoints of an etcd cluster, "https://host:2379", that
	// holds the records in place of the embedded store; EtcdCert, EtcdKey and
	// EtcdCA are PEM files.
	Etcd     []string `toml:"etcd"`
	EtcdCert string   `toml:"etcd_cert"`
	EtcdKey  string   `toml:"etcd_key"`
	EtcdCA   string   `toml:"etcd_ca"`
}

// duration is written as in "12h" or "90s".
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

func defaults() (config, error) {
	name, err := os.Hostname()
	if err != nil {
		return config{}, err
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	return config{
		Name: name, State: "/var/lib/xos/core", Socket: "/run/xos/core.sock",
		Listen: ":7443", ListenBus: ":7442", ListenMRC: ":7446",
		UserValidity: duration{12 * time.Hour}, DelegatedValidity: duration{time.Hour}, Offline: duration{24 * time.Hour}, AuditJournal: true,
	}, nil
}

// readConfig reads a file over the defaults; one that is not there changes
// nothing, and a word that means nothing is an error.
func readConfig(path string) (config, error) {
	cfg, err := defaults()
	if err != nil {
		return cfg, err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cfg, xos.Errorf(xos.Invalid, "reading the configuration: %w", err)
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&cfg); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return cfg, xos.Errorf(xos.Invalid, "%s has settings that xos-core does not know:\n%s", path, strict.String())
		}
		return cfg, xos.Errorf(xos.Invalid, "reading %s: %w", path, err)
	}
	return cfg, cfg.validate()
}

func (c config) validate() error {
	if !xos.ValidName(c.Name) {
		return xos.Errorf(xos.Invalid, "name = %q cannot be a node's name", c.Name)
	}
	for key, address := range map[string]string{"listen": c.Listen, "listen_bus": c.ListenBus, "listen_mrc": c.ListenMRC} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return xos.Errorf(xos.Invalid, "%s = %q is no host:port", key, address)
		}
	}
	if c.UserValidity.Duration < time.Second || c.UserValidity.Duration > 12*time.Hour {
		return xos.Errorf(xos.Invalid, "user_validity = %v must be between 1s and 12h", c.UserValidity)
	}
	if c.DelegatedValidity.Duration < vom.MinDelegation || c.DelegatedValidity.Duration > 12*time.Hour {
		return xos.Errorf(xos.Invalid, "delegated_validity = %v must be between %v and 12h", c.DelegatedValidity, vom.MinDelegation)
	}
	if c.Offline.Duration < time.Second {
		return xos.Errorf(xos.Invalid, "offline = %v is too short", c.Offline)
	}
	if c.AuditKeep.Duration != 0 && c.AuditKeep.Duration < 24*time.Hour {
		return xos.Errorf(xos.Invalid, "audit_keep = %v is too short: at least 24h, or 0s", c.AuditKeep)
	}
	if len(c.Etcd) > 0 && (c.EtcdCert == "" || c.EtcdKey == "" || c.EtcdCA == "") {
		return xos.Errorf(xos.Invalid, "etcd needs etcd_cert, etcd_key and etcd_ca")
	}
	return nil
}
