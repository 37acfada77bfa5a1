package guard

import (
	"os"
	"strings"
)

// hasMounts reports whether something is mounted below a directory, see
// proc_pid_mountinfo(5).
func hasMounts(dir string) (bool, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return true, nil
		}
	}
	return false, nil
}
