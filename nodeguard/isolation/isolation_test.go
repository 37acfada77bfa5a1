package isolation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xtreemos/xos"
	"github.com/xtreemos/xos/nodeguard/isolation"
)

func TestParse(t *testing.T) {
	got, err := isolation.Parse([]byte(`# of physics
forbid = ["setuid", "perf", "setuid"]
devices = ["gpu"]

[share]
network = ["chemistry", "biology", "chemistry"]
files = ["*"]
[ceilings]
memory = "4G"
cpus = "1.5"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := isolation.Policy{Forbid: []isolation.Restriction{"perf", "setuid"}, Devices: []isolation.Class{"gpu"},
		Ceilings: isolation.Ceilings{CPUs: "1.5", Memory: "4G"},
		Share:    map[isolation.Aim][]xos.VOName{"network": {"biology", "chemistry"}, "files": {"*"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseSite(t *testing.T) {
	got, err := isolation.ParseSite([]byte(`
share = ["network", "sockets"]
forbid = ["user_namespaces"]
permit = ["socket_lists"]
[devices]
gpu = ["/dev/nvidia*", "/dev/dri/renderD128"]
[vo.physics.share]
network = ["chemistry"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := isolation.Site{Share: []isolation.Aim{"network", "sockets"}, Forbid: []isolation.Restriction{"user_namespaces"}, Permit: []isolation.Restriction{"socket_lists"},
		Devices: map[isolation.Class][]string{"gpu": {"/dev/dri/renderD128", "/dev/nvidia*"}},
		VOs:     map[xos.VOName]isolation.Policy{"physics": {Share: map[isolation.Aim][]xos.VOName{"network": {"chemistry"}}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestMistakes: each is refused, with its line and what is wrong there.
func TestMistakes(t *testing.T) {
	vo := func(text string) error { _, err := isolation.Parse([]byte(text)); return err }
	site := func(text string) error { _, err := isolation.ParseSite([]byte(text)); return err }
	many := ""
	for i := range 65 {
		many += fmt.Sprintf("%q,", fmt.Sprint("v", i))
	}
	for _, tc := range []struct {
		read func(string) error
		text string
		want []string
	}{
		{vo, "[share]\nnetwork = [\"Physics\"]", []string{"line 2", "no VO's name"}},
		{vo, "[share]\n\nnetwrok = [\"physics\"]", []string{"line 3", "share.netwrok"}},
		{vo, "[share]\nkernel = [\"physics\"]", []string{"line 2", "share.kernel"}},
		{vo, "[share]\nnetwork = \"physics\"", []string{"line 2"}},
		{vo, "forbid = [\"perf\",\n\"sudo\"]", []string{"line 2", "nothing that can be forbidden", "own_programs"}},
		{vo, "devices = [\"/dev/sda\"]", []string{"line 1", "class"}},
		{vo, "share = 1", []string{"line 1"}},
		{vo, "[ceilings]\nmemory = \"much\"", []string{"line 2", "neither an amount"}},
		{vo, "[ceilings]\nmemory = \"-4G\"", []string{"line 2"}},
		{vo, "[ceilings]\nsockets = \"4\"", []string{"line 2", "ceilings.sockets"}},
		{vo, "[share]\n[share]\n", []string{"line 2"}},
		{vo, "what", []string{"line 1"}},
		{vo, "[share]\nnetwork = [" + many + "]", []string{"line 2: share.network: 65 VOs, at most 64"}},
		{vo, strings.Repeat("#", isolation.MaxText+1), []string{"at most 16384"}},
		{site, "share = [\"kernel\"]", []string{"line 1", "nothing that can be shared"}},
		{site, "\npermit = [\"perf\"]", []string{"line 2", "nothing that a site has to permit", "socket_lists"}},
		{vo, "permit = [\"socket_lists\"]", []string{"line 1", "permit"}},
		{site, "[devices]\ngpu = [\"/etc/passwd\"]", []string{"line 2", "no path below /dev"}},
		{site, "[devices]\ngpu = [\"/dev/../etc/passwd\"]", []string{"line 2"}},
		{site, "[devices]\ngpu = [\"/dev/[\"]", []string{"line 2"}},
		{site, "[vo.Physics.share]\nnetwork = []", []string{"line 1: vo.Physics"}},
		{site, "[vo.physics]\nshared = 1", []string{"line 2", "vo.physics.shared"}},
	} {
		err := tc.read(tc.text)
		if err == nil {
			t.Errorf("%q is taken", tc.text)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: %v (want %q in it)", tc.text, err, want)
			}
		}
	}
}

func TestTake(t *testing.T) {
	mine := isolation.Policy{Devices: []isolation.Class{"gpu"}}
	site := isolation.Site{VOs: map[xos.VOName]isolation.Policy{"physics": mine}}
	for _, tc := range []struct {
		vo   xos.VOName
		text string
		from isolation.Origin
		want isolation.Policy
	}{
		{"physics", "", isolation.FromSite, mine},
		{"chemistry", "", isolation.FromDefault, isolation.Policy{}},
		{"physics", "forbid = []", isolation.FromVO, isolation.Policy{}}, // the VO's word counts, even if it says nothing
		{"physics", "forbid = [\"tomorrow\"]", isolation.Unreadable, isolation.Strictest()},
	} {
		got := site.Take(tc.vo, tc.text, time.Time{})
		if got.From != tc.from || (got.Why != "") != (tc.from == isolation.Unreadable) {
			t.Errorf("%s %q: %+v", tc.vo, tc.text, got)
		}
		if d := cmp.Diff(tc.want, got.Policy); d != "" {
			t.Errorf("%s %q: %s", tc.vo, tc.text, d)
		}
	}
}

// TestForbidden: what a site has to permit is forbidden else, to a VO without a
// policy too; and a VO may forbid itself what the site permits.
func TestForbidden(t *testing.T) {
	strict, lenient := isolation.Site{Forbid: []isolation.Restriction{"perf"}}, isolation.Site{Permit: []isolation.Restriction{"socket_lists"}}
	none := isolation.VO{Name: "physics"}
	own := isolation.VO{Name: "physics", Policy: isolation.Policy{Forbid: []isolation.Restriction{"socket_lists", "setuid"}}}
	for i, tc := range []struct {
		site  isolation.Site
		vo    isolation.VO
		want  []isolation.Restriction
		entry bool // it differs from what others have
	}{
		{isolation.Site{}, none, []isolation.Restriction{"socket_lists"}, false},
		{strict, none, []isolation.Restriction{"perf", "socket_lists"}, false},
		{strict, own, []isolation.Restriction{"perf", "setuid", "socket_lists"}, true},
		{lenient, none, nil, false},
		{lenient, own, []isolation.Restriction{"setuid", "socket_lists"}, true},
	} {
		if d := cmp.Diff(tc.want, tc.site.Forbidden(tc.vo)); d != "" {
			t.Errorf("%d: %s", i, d)
		}
		var bits uint32
		for _, r := range tc.want {
			bits |= 1 << slices.Index(isolation.Restrictions, r)
		}
		table, err := tc.site.Compile([]isolation.VO{tc.vo}, func(xos.VOName) (uint32, error) { return 7, nil })
		if err != nil {
			t.Fatal(err)
		}
		e, ok := table.VOs[7]
		if ok != tc.entry || ok && e.Forbid != bits || !ok && table.Default.Forbid != bits {
			t.Errorf("%d: compiled to %+v, want bits %b", i, table, bits)
		}
	}
}

// world makes random policies of a few VOs, of which some name each other.
func world(r *rand.Rand, now time.Time) (isolation.Site, []isolation.VO) {
	var site isolation.Site
	names := []xos.VOName{"a", "b", "c", "d", "e", "f"}
	for _, aim := range isolation.Aims {
		if r.IntN(4) > 0 {
			site.Share = append(site.Share, aim)
		}
	}
	var vos []isolation.VO
	for _, name := range names[:2+r.IntN(len(names)-2)] {
		vo := isolation.VO{Name: name, Policy: isolation.Policy{Share: map[isolation.Aim][]xos.VOName{}}}
		for _, aim := range isolation.Aims {
			for range r.IntN(4) {
				// Of VOs that are not there, and of its own, too.
				peer := append(names, isolation.Any, isolation.Any, "nobody")[r.IntN(len(names)+3)]
				vo.Policy.Share[aim] = append(vo.Policy.Share[aim], peer)
			}
		}
		if r.IntN(3) == 0 {
			vo.Until = now.Add(time.Duration(r.IntN(3)-1) * time.Hour)
		}
		vos = append(vos, vo)
	}
	return site, vos
}

// TestCompiledIsTheModel: what is compiled decides as the policies mean, for
// every pair of VOs and every aim; and nothing is shared by one side's wish.
func TestCompiledIsTheModel(t *testing.T) {
	now := time.Now()
	shared, apart := 0, 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		site, vos := world(r, now)
		offset := r.Uint32()
		number := func(name xos.VOName) (uint32, error) { return (uint32(name[0]) * 0x9e3779b9) ^ offset | 1, nil }
		table, err := site.Compile(vos, number)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range vos {
			for _, b := range vos {
				for _, aim := range isolation.Aims {
					if a.Name == b.Name {
						continue // never asked
					}
					x, _ := number(a.Name)
					y, _ := number(b.Name)
					want, back := site.Decide(a, b, aim, now), site.Decide(b, a, aim, now)
					if want.Shared != back.Shared {
						t.Fatalf("seed %d: %s and %s disagree of %s: %+v %+v", seed, a.Name, b.Name, aim, want, back)
					}
					if got := table.Shares(x, y, aim, now); got != want.Shared {
						t.Fatalf("seed %d: %s and %s, %s: compiled %t, but %+v", seed, a.Name, b.Name, aim, got, want)
					}
					if want.Shared {
						shared++
					} else {
						apart++
					}
					stranger := uint32(0)
					if table.Shares(x, stranger, aim, now) {
						t.Fatalf("seed %d: %s shares %s with a VO that is not known", seed, a.Name, aim)
					}
				}
			}
		}
	}
	if shared < 10000 || apart < 10000 {
		t.Errorf("%d shared, %d apart: too few of one to prove anything", shared, apart)
	}
}

func TestDecideSaysWho(t *testing.T) {
	now := time.Now()
	vo := func(name xos.VOName, until time.Time, peers ...xos.VOName) isolation.VO {
		return isolation.VO{Name: name, From: isolation.FromVO, Until: until, Policy: isolation.Policy{Share: map[isolation.Aim][]xos.VOName{"network": peers}}}
	}
	open := isolation.Site{Share: []isolation.Aim{"network"}}
	physics, chemistry := vo("physics", time.Time{}, "chemistry"), vo("chemistry", time.Time{}, "*")
	for _, tc := range []struct {
		site   isolation.Site
		a, b   isolation.VO
		shared bool
		why    string
	}{
		{open, physics, chemistry, true, "share network with each other"},
		{isolation.Site{}, physics, chemistry, false, "site does not permit"},
		{open, vo("physics", time.Time{}), chemistry, false, "physics does not share network with chemistry (set by the VO)"},
		{open, physics, vo("chemistry", time.Time{}, "biology"), false, "chemistry does not share network with physics"},
		{open, vo("physics", now, "chemistry"), chemistry, false, "news of physics are too old"},
	} {
		got := tc.site.Decide(tc.a, tc.b, "network", now)
		if got.Shared != tc.shared || !strings.Contains(got.Why, tc.why) {
			t.Errorf("got %+v, want %t because %q", got, tc.shared, tc.why)
		}
	}
}

// FuzzParse: whatever is read, an accepted policy names only what is known, and
// compiles.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "forbid = [\"perf\"]", "devices = [\"gpu\"]\n[share]\nnetwork = [\"*\", \"a\"]", "[share]\nfiles=[\"b\"]\nipc=[]",
		"share = [\"network\"]\n[devices]\ngpu = [\"/dev/null\"]\n[vo.a]\nforbid = [\"setuid\"]", "[share]\n'network' = [ ['x'] ]", "share.network = ['a']\nshare.network = ['b']"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		check := func(p isolation.Policy) {
			for aim, names := range p.Share {
				if aim.Bit() == 0 || len(names) == 0 || len(names) > 64 {
					t.Errorf("%q is shared with %d", aim, len(names))
				}
				for _, n := range names {
					if n != isolation.Any && !xos.ValidName(string(n)) {
						t.Errorf("the name %q is taken", n)
					}
				}
			}
		}
		site := isolation.Site{Share: isolation.Aims}
		if s, err := isolation.ParseSite(text); err == nil {
			site = s
			for _, p := range s.VOs {
				check(p)
			}
		}
		p, err := isolation.Parse(text)
		if err == nil {
			check(p)
		}
		vos := []isolation.VO{{Name: "a", Policy: p}, {Name: "b"}, site.Take("c", string(text), time.Time{})}
		table, err := site.Compile(vos, func(n xos.VOName) (uint32, error) { return uint32(n[0]), nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(table.VOs) > 3 || table.Shares('a', 'b', "network", time.Now()) {
			t.Errorf("a VO that names nobody shares: %+v", table)
		}
	})
}
