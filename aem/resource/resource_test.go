package resource_test

import (
	"runtime"
	"testing"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/aem/resource"
	"github.com/xtreemos/xos/srds"
)

func TestDescribe(t *testing.T) {
	jobs := 3
	m := resource.New(resource.Config{Node: "node1", Address: "node1:7444", VOs: []xos.VOName{"physics"}},
		resource.Live{Jobs: func() int { return jobs }, Isolation: func() string { return "C" }})
	a := m.Describe()
	if a.Node != "node1" || a.Text["arch"] != runtime.GOARCH || a.Text["isolation"] != "C" || a.Text["os"] == "" || a.Text["kernel"] == "" {
		t.Errorf("%+v", a)
	}
	if a.Number["cpus"] < 1 || a.Number["memory"] < 1<<26 || a.Number["memory_free"] <= 0 || a.Number["memory_free"] > a.Number["memory"] || a.Number["jobs"] != 3 {
		t.Errorf("%+v", a.Number)
	}
	jobs = 4
	if n := m.Describe().Number["jobs"]; n != 4 {
		t.Errorf("still %v jobs", n)
	}
	most := 3.0
	if ok, why := (srds.Query{VO: "physics", Ranges: []srds.Range{{Attribute: "jobs", Max: &most}}}).Match(m.Describe()); ok || why != "jobs" {
		t.Errorf("matched %v, %q", ok, why)
	}
}
