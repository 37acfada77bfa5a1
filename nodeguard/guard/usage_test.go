package guard_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xtreemos/xos"
)

// TestRootUsageIsTold has a job use a processor, and reads it back in the format
// of Prometheus, for the job and for its VO.
func TestRootUsageIsTold(t *testing.T) {
	s := newStage(t)
	who := xos.Account{User: "alice", VO: "physics"}
	path, err := s.Guard.JobCgroup(t.Context(), who, "j1")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Guard.RemoveJob(t.Context(), who, "j1")
	s.dir = filepath.Join(s.cfg.CgroupRoot, path)
	if err := s.command(t, 1879048998, "connect", "unix", "/nowhere").Run(); err == nil {
		t.Fatal("the actor connected to nothing")
	}
	get := func(method string) (int, string) {
		w := httptest.NewRecorder()
		s.Guard.Metrics().ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
		return w.Code, w.Body.String()
	}
	status, text := get(http.MethodGet)
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	for _, series := range []string{`xos_vo_cpu_seconds_total{vo="physics"} `, `xos_job_cpu_seconds_total{vo="physics",job="j1"} `} {
		_, rest, found := strings.Cut(text, series)
		var seconds float64
		if n, err := fmt.Sscan(rest, &seconds); !found || n != 1 || err != nil || seconds <= 0 {
			t.Errorf("%s has %v (%v) in\n%s", series, seconds, err, text)
		}
	}
	if strings.Count(text, "# TYPE xos_vo_cpu_seconds_total counter\n") != 1 {
		t.Errorf("the type is not told once:\n%s", text)
	}
	if status, _ := get(http.MethodPost); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", status)
	}
	if err := s.Guard.RemoveJob(t.Context(), who, "j1"); err != nil {
		t.Fatal(err)
	}
	if _, text := get(http.MethodGet); strings.Contains(text, "xos_job_") {
		t.Errorf("a job that is gone is told:\n%s", text)
	} else if _, rest, found := strings.Cut(text, `xos_vo_cpu_seconds_total{vo="physics"} `); !found || strings.HasPrefix(rest, "0\n") {
		t.Errorf("what it used is not its VO's any more:\n%s", text)
	}
}
