// Command man writes the manual pages of the daemons (section 8) and of their
// configuration files (section 5).   usage: man DIRECTORY [PAGE...]
//
// The pages' frames are in pages/. What a program accepts is read from its
// source: description, flags, and configuration keys with types, defaults and
// meaning. The pages of section 1 are written by xos itself ("xos man").
package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

//go:embed pages
var frames embed.FS

// page is one manual page.
type page struct {
	Name, Section string
	// program is the folder in cmd that it is about, config the type of its
	// configuration there; "" for a program that has none.
	program, config string
}

var pages = []page{
	{"xos-core", "8", "xos-core", "config"},
	{"xos-node", "8", "xos-node", "config"},
	{"xos-userdb", "8", "xos-userdb", ""},
	{"xos-osd", "8", "xos-osd", "config"},
	{"mount.xosfs", "8", "mount.xosfs", "config"},
	{"core.toml", "5", "xos-core", "config"},
	{"node.toml", "5", "xos-node", "config"},
	{"osd.toml", "5", "xos-osd", "config"},
	{"client.toml", "5", "xos", "clientSettings"},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY [PAGE...], from the top of the tree")
		os.Exit(64)
	}
	if err := write(".", os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// write makes DIR/manN/NAME.N for the pages named, "xos-core.8"; for all if
// none is named.
func write(tree, dir string, only []string) error {
	when, err := date()
	if err != nil {
		return err
	}
	for _, p := range pages {
		file := p.Name + "." + p.Section
		if len(only) > 0 && !slices.Contains(only, file) {
			continue
		}
		text, err := p.markdown(tree, when)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		to := filepath.Join(dir, "man"+p.Section, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, md2man.Render(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// markdown fills the page's frame from its program's source.
func (p page) markdown(tree string, when time.Time) ([]byte, error) {
	s, err := read(tree, p.program, p.config)
	if err != nil {
		return nil, err
	}
	frame, err := template.ParseFS(frames, "pages/"+p.Name+"."+p.Section+".md")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%% \"%s\" \"%s\" \"%s\" \"XtreemOS\" \"XtreemOS\"\n", strings.ToUpper(p.Name), p.Section, when.Format("Jan 2006"))
	err = frame.Execute(&out, map[string]string{"About": s.about, "Flags": s.flagList(), "Keys": s.keyList()})
	return out.Bytes(), err
}

// date is that of the pages: of the build, or the commit that it is of.
func date() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	return time.Unix(n, 0).UTC(), err
}
