package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/xtreemos/xos"
)

// MaxText bounds a policy's text, which every machine holds and reads.
const MaxText = 16 << 10

// maxNames bounds a list. So many names are written into a map for one VO.
const maxNames = 64

// document is the text of a policy.
type document struct {
	Forbid  []word[restriction] `toml:"forbid"`
	Devices []word[class]       `toml:"devices"`
	Share   shares              `toml:"share"`
	// Ceilings has the same keys as vo_* in node.toml.
	Ceilings struct {
		CPUs      word[amount] `toml:"cpus"`
		Memory    word[amount] `toml:"memory"`
		Processes word[amount] `toml:"processes"`
		IO        word[amount] `toml:"io"`
	} `toml:"ceilings"`
}

// shares has a list for each of Aims: what is no aim is refused with its line.
type shares struct {
	Signals    []word[peer] `toml:"signals"`
	Debug      []word[peer] `toml:"debug"`
	Scheduling []word[peer] `toml:"scheduling"`
	Files      []word[peer] `toml:"files"`
	Exec       []word[peer] `toml:"exec"`
	Sockets    []word[peer] `toml:"sockets"`
	IPC        []word[peer] `toml:"ipc"`
	Keys       []word[peer] `toml:"keys"`
	Network    []word[peer] `toml:"network"`
}

// lists is in the order of Aims.
func (s shares) lists() [][]word[peer] {
	return [][]word[peer]{s.Signals, s.Debug, s.Scheduling, s.Files, s.Exec, s.Sockets, s.IPC, s.Keys, s.Network}
}

// siteDocument is the text of a site's policy.
type siteDocument struct {
	Share   []word[permitted]         `toml:"share"`
	Forbid  []word[restriction]       `toml:"forbid"`
	Permit  []word[liftable]          `toml:"permit"`
	Devices map[string][]word[device] `toml:"devices"`
	VO      map[string]document       `toml:"vo"`
}

// word is a text that is read only if it is good, so that a mistake has its
// line. (It is a struct since the decoder asks no string in a list.)
type word[C checker] struct{ text string }

func (w *word[C]) UnmarshalText(text []byte) error {
	var c C
	w.text = string(text)
	return c.check(w.text)
}

// checker says what is wrong with a text.
type checker interface{ check(text string) error }

type (
	peer        struct{} // a VO's name, or "*"
	permitted   struct{} // an aim, or "*"
	restriction struct{}
	liftable    struct{}
	class       struct{}
	device      struct{} // a path below /dev, or a pattern of paths
	amount      struct{} // "1.5", "16G" or "75%"; what it comes to is a machine's business
)

func (peer) check(text string) error {
	if text != string(Any) && (!xos.ValidName(text) || xos.ReservedName(text)) {
		return fmt.Errorf("%.80q is no VO's name, and not \"*\"", text)
	}
	return nil
}

func (permitted) check(text string) error {
	if text != "*" && Aim(text).Bit() == 0 {
		return fmt.Errorf("%.40q is nothing that can be shared: want %s, or \"*\"", text, list(Aims))
	}
	return nil
}

func (restriction) check(text string) error {
	if !slices.Contains(Restrictions, Restriction(text)) {
		return fmt.Errorf("%.40q is nothing that can be forbidden: want %s", text, list(Restrictions))
	}
	return nil
}

func (liftable) check(text string) error {
	if !slices.Contains(Liftable, Restriction(text)) {
		return fmt.Errorf("%.40q is nothing that a site has to permit: want %s", text, list(Liftable))
	}
	return nil
}

func (class) check(text string) error {
	if !xos.ValidName(text) {
		return fmt.Errorf("%.80q is no name of a class of devices: want a lower-case letter, then a-z 0-9 _ - .", text)
	}
	return nil
}

func (device) check(text string) error {
	if _, err := path.Match(text, ""); err != nil || len(text) > 200 || path.Clean(text) != text || !strings.HasPrefix(text, "/dev/") {
		return fmt.Errorf("%.80q is no path below /dev", text)
	}
	return nil
}

var amounts = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,3})?[KMGT%]?$`)

func (amount) check(text string) error {
	if !amounts.MatchString(text) {
		return fmt.Errorf("%.40q is neither an amount, as in 2 or 16G, nor a part, as in 75%%", text)
	}
	return nil
}

// Parse reads a VO's policy. An error names the line and what is wrong with it.
func Parse(text []byte) (Policy, error) {
	var d document
	if err := decode(text, &d); err != nil {
		return Policy{}, err
	}
	return d.policy(text, "")
}

// ParseSite reads what a machine's site permits.
func ParseSite(text []byte) (Site, error) {
	var d siteDocument
	if err := decode(text, &d); err != nil {
		return Site{}, err
	}
	s := Site{Share: set[Aim](d.Share), Forbid: set[Restriction](d.Forbid), Permit: set[Restriction](d.Permit)}
	if slices.Contains(s.Share, "*") {
		s.Share = slices.Clone(Aims)
	}
	for name, paths := range d.Devices {
		if err := (class{}).check(name); err != nil || len(paths) > maxNames {
			return Site{}, at(text, "devices."+name, "want a class's name (a-z 0-9 _ - .) and at most %d paths", maxNames)
		}
		if s.Devices == nil {
			s.Devices = map[Class][]string{}
		}
		s.Devices[Class(name)] = set[string](paths)
	}
	for vo, d := range d.VO {
		if !xos.ValidName(vo) || xos.ReservedName(vo) {
			return Site{}, at(text, "vo."+vo, "that is no VO's name")
		}
		p, err := d.policy(text, "vo."+vo+".")
		if err != nil {
			return Site{}, err
		}
		if s.VOs == nil {
			s.VOs = map[xos.VOName]Policy{}
		}
		s.VOs[xos.VOName(vo)] = p
	}
	return s, nil
}

// decode reads strictly, and puts a mistake into words with its line.
func decode(text []byte, into any) error {
	if len(text) > MaxText {
		return xos.Errorf(xos.TooLarge, "a policy of %d bytes: at most %d", len(text), MaxText)
	}
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(into)
	var strict *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		line, _ := strict.Errors[0].Position()
		return xos.Errorf(xos.Invalid, "line %d: %.80q is nothing that a policy of isolation has", line, strings.Join(strict.Errors[0].Key(), "."))
	case errors.As(err, &bad):
		line, _ := bad.Position()
		return xos.Errorf(xos.Invalid, "line %d: %s", line, strings.TrimPrefix(strings.TrimPrefix(bad.Error(), "toml: "), "error calling UnmarshalText: "))
	}
	return xos.Errorf(xos.Invalid, "it is no TOML: %w", err)
}

// policy checks what a reader of words cannot. Its keys in text begin with prefix.
func (d document) policy(text []byte, prefix string) (Policy, error) {
	c := d.Ceilings
	p := Policy{Forbid: set[Restriction](d.Forbid), Devices: set[Class](d.Devices),
		Ceilings: Ceilings{CPUs: c.CPUs.text, Memory: c.Memory.text, Processes: c.Processes.text, IO: c.IO.text}}
	if len(p.Devices) > maxNames {
		return Policy{}, at(text, prefix+"devices", "%d classes, at most %d", len(p.Devices), maxNames)
	}
	for i, peers := range d.Share.lists() {
		names := set[xos.VOName](peers)
		switch {
		case len(names) == 0:
			continue
		case len(names) > maxNames:
			return Policy{}, at(text, prefix+"share."+string(Aims[i]), "%d VOs, at most %d, or \"*\"", len(names), maxNames)
		case p.Share == nil:
			p.Share = map[Aim][]xos.VOName{}
		}
		p.Share[Aims[i]] = names
	}
	return p, nil
}

// set sorts what was read and drops what is there twice; nil for nothing.
func set[S ~string, C checker](words []word[C]) []S {
	var names []S
	for _, w := range words {
		names = append(names, S(w.text))
	}
	return sorted(names)
}

func sorted[S ~string](names []S) []S {
	slices.Sort(names)
	return slices.Compact(names)
}

func list[S ~string](names []S) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}
