package audit

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xtreemos/xos"
)

// Filter says which entries a query wants; a zero field wants any.
type Filter struct {
	Since, Until time.Time
	Actor        string
	// Action is one, whole or by its last part: "login", "RemoveMember" for
	// "/xos.v1.VOs/RemoveMember".
	Action  string
	Subject string
	// VO and User are whom an entry concerns: see About.
	VO     xos.VOName
	User   xos.UserID
	Denied bool // only refusals
	// Detail are details that an entry must have.
	Detail map[string]string
	// Before wants only entries with a lower number: the next page is what
	// lies before the first entry of this one.
	Before uint64
	// Last keeps only that many, the newest; 0 means 1000.
	Last int
}

// Query gives the entries that match, oldest first. It reads from the end of
// the log and only as far as it must. A line that is none is xos.Invalid.
func (l *Log) Query(f Filter) ([]Entry, error) { return Query(l.path, f) }

// Query is Log.Query for a log that need not be open.
func Query(path string, f Filter) ([]Entry, error) {
	if f.Last <= 0 {
		f.Last = 1000
	}
	file, older, last, err := openAll(path)
	if err != nil {
		return nil, err
	}
	var found []Entry
	for i := len(older); ; i-- {
		// All entries of this file are above those of the one before.
		if i == 0 || f.Before == 0 || last[i-1]+1 < f.Before {
			if err = f.search(file, &found); err != nil || len(found) >= f.Last {
				break
			}
		}
		file.Close()
		if i == 0 {
			break
		}
		if file, err = os.Open(older[i-1]); err != nil {
			if errors.Is(err, fs.ErrNotExist) { // it expired meanwhile
				err = nil
			}
			break
		}
	}
	file.Close()
	slices.Reverse(found)
	return found, err
}

// search adds what matches in a file, newest first, until there is enough.
func (f Filter) search(file *os.File, found *[]Entry) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if f.Before > 0 {
		if end, err = seek(file, end, f.Before); err != nil {
			return err
		}
	}
	return backwards(file, end, func(line []byte) (bool, error) {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return false, xos.Errorf(xos.Invalid, "audit log %s: a line is malformed: %w", file.Name(), err).
				WithHint("xos audit verify says which")
		}
		if f.match(e) {
			*found = append(*found, e)
		}
		return len(*found) < f.Last, nil
	})
}

func (f Filter) match(e Entry) bool {
	user, vo := e.About()
	return (f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		(f.Before == 0 || e.Seq < f.Before) &&
		(f.Actor == "" || f.Actor == e.Actor) &&
		(f.Action == "" || f.Action == e.Action || strings.HasSuffix(e.Action, "/"+f.Action)) &&
		(f.Subject == "" || f.Subject == e.Subject) &&
		(f.VO == "" || f.VO == vo) &&
		(f.User == "" || f.User == user) &&
		!(f.Denied && e.Allowed) && f.detailed(e)
}

func (f Filter) detailed(e Entry) bool {
	for k, v := range f.Detail {
		if e.Detail[k] != v {
			return false
		}
	}
	return true
}

// About gives whom a record concerns: as it says, or, where it does not, the
// account that is its subject.
func (r Record) About() (xos.UserID, xos.VOName) {
	if r.User == "" && r.VO == "" {
		if a, err := xos.ParseAccount(r.Subject); err == nil {
			return a.User, a.VO
		}
	}
	return r.User, r.VO
}
