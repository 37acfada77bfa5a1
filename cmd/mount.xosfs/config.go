package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
)

// config is what xos-node writes for each mount.
type config struct {
	// Volume is what is mounted, Mountpoint the absolute path where.
	Volume     string `toml:"volume"`
	Mountpoint string `toml:"mountpoint"`
	// Account is whose mount this is; UID and GID are hers on this machine,
	// Groups the local ids of her VO groups.
	Account string            `toml:"account"`
	UID     uint32            `toml:"uid"`
	GID     uint32            `toml:"gid"`
	Groups  map[string]uint32 `toml:"groups"`
	// Core is host:port of the core's API; MRC that of the metadata service,
	// asked of the core where it is empty.
	Core string `toml:"core"`
	MRC  string `toml:"mrc"`
	// Credentials is a directory with cert.pem and key.pem, the delegated
	// credential. They are read again when they have changed.
	Credentials string `toml:"credentials"`
	// Roots is a file with the grid's root certificate.
	Roots string `toml:"roots"`
}

// readConfig reads a file; a word that means nothing is an error.
func readConfig(path string) (config, error) {
	var cfg config
	data, err := os.ReadFile(path)
	if err != nil {
		return cfg, xos.Errorf(xos.Invalid, "reading the configuration: %w", err)
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&cfg); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return cfg, xos.Errorf(xos.Invalid, "%s has settings that mount.xosfs does not know:\n%s", path, strict.String())
		}
		return cfg, xos.Errorf(xos.Invalid, "reading %s: %w", path, err)
	}
	return cfg, cfg.validate()
}

func (c config) validate() error {
	if _, err := xos.ParseAccount(c.Account); err != nil {
		return err
	}
	for key, path := range map[string]string{"mountpoint": c.Mountpoint, "credentials": c.Credentials, "roots": c.Roots} {
		if !filepath.IsAbs(path) {
			return xos.Errorf(xos.Invalid, "%s = %q is no absolute path", key, path)
		}
	}
	for key, address := range map[string]string{"core": c.Core, "mrc": c.MRC} {
		if address == "" && key == "mrc" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return xos.Errorf(xos.Invalid, "%s = %q is no host:port", key, address)
		}
	}
	if c.Volume == "" || c.UID == 0 || c.GID == 0 {
		return xos.Errorf(xos.Invalid, "volume, uid and gid must be given, and no home is root's")
	}
	return nil
}
