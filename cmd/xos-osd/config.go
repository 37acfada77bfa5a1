package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
)

// config is /etc/xos/osd.toml. Every field has a default.
type config struct {
	// Core is host:port of the core; xos up writes it.
	Core string `toml:"core"`
	// Bus is host:port of the core's bus; empty: port 7442 of the core's host.
	Bus string `toml:"bus"`
	// State holds the machine's credential for this service.
	State string `toml:"state"`
	// Data is the directory of the data; State/data.
	Data string `toml:"data"`
	// Listen is the address to listen at, "host:port".
	Listen string `toml:"listen"`
	// Advertise is host:port under which clients reach this OSD; the
	// machine's address towards the core, with Listen's port.
	Advertise string `toml:"advertise"`
	// Capacity bounds the bytes of data; 0: the disk's.
	Capacity int64 `toml:"capacity"`
	// Trust is where the grid's root certificate is.
	Trust string `toml:"trust"`
}

func defaults() config {
	return config{Core: "localhost:7443", State: "/var/lib/xos/osd", Listen: ":7445", Trust: "/etc/xos/trust"}
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
			return cfg, xos.Errorf(xos.Invalid, "%s has settings that xos-osd does not know:\n%s", path, strict.String())
		}
		return cfg, xos.Errorf(xos.Invalid, "reading %s: %w", path, err)
	}
	if cfg.Bus == "" {
		host, _, err := net.SplitHostPort(cfg.Core)
		if err != nil {
			return cfg, xos.Errorf(xos.Invalid, "core = %q is no host:port", cfg.Core)
		}
		cfg.Bus = net.JoinHostPort(host, "7442")
	}
	return cfg, cfg.validate()
}

func (c *config) validate() error {
	for key, address := range map[string]string{"core": c.Core, "bus": c.Bus, "listen": c.Listen, "advertise": c.Advertise} {
		if address == "" && key == "advertise" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return xos.Errorf(xos.Invalid, "%s = %q is no host:port", key, address)
		}
	}
	if c.Capacity < 0 {
		return xos.Errorf(xos.Invalid, "capacity = %d is negative", c.Capacity)
	}
	if c.Data == "" {
		c.Data = filepath.Join(c.State, "data")
	}
	return nil
}
