package testbed

import (
	"context"
	"os/exec"
	"strings"
)

// publicMirror is Debian's own default, taken only on a machine whose apt
// knows no Debian archive.
const publicMirror = "http://deb.debian.org/debian"

// Mirror is the Debian archive this machine's apt is configured with.
func Mirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").Output()
	if err != nil {
		return publicMirror
	}
	return pickMirror(string(out))
}

// pickMirror chooses from lines "URI RELEASE". Only the main archive holds all
// releases below one address; security and vendors' archives do not.
func pickMirror(targets string) string {
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		uri := strings.TrimSuffix(fields[0], "/")
		if strings.HasSuffix(uri, "/debian") && !strings.Contains(fields[1], "-security") {
			return uri
		}
	}
	return publicMirror
}

// AptProxy is the HTTP proxy apt uses, or "". debootstrap reads it from the
// environment instead of apt's configuration.
func AptProxy(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "shell", "P", "Acquire::http::Proxy").Output()
	if err != nil {
		return ""
	}
	value := strings.TrimSpace(string(out))
	value = strings.TrimPrefix(value, "P=")
	return strings.Trim(value, "'")
}
