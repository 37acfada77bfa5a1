// Package need is the one way in which a test may skip: it says what is
// missing, in a form that the summary of "make test" collects, and fails
// instead where the thing must be there (XOS_NEED_ALL=1, set by continuous
// integration).
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Root needs the superuser.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "run as root")
	}
}

// Command needs a program and gives its path.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, "make setup installs it")
	}
	return path
}

// File needs a file or device.
func File(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(t, path, err.Error())
	}
}

// Missing skips the test because this machine lacks something, or fails it
// where everything must be there.
func Missing(t testing.TB, what, why string) {
	t.Helper()
	if os.Getenv("XOS_NEED_ALL") != "" {
		t.Fatalf("needs %s: %s", what, why)
	}
	t.Skipf("SKIPPED needs %s: %s", what, why)
}
