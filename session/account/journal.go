package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strconv"
	"time"

	"github.com/xtreemos/xos"
)

// The journal holds the account map: a file of lines, each
//
//	CRC32C (8 hex digits) SP JSON LF
//
// of which the first says the version, and each further one has the list of
// records that were made durable together. A line is appended and fsynced
// before anybody learns of it. At each opening the file is written anew, so that all
// that was read is also safe on disk, whatever became of the last write.
const (
	journalName = "accounts.journal"
	journalNew  = "accounts.journal.new"
)

const journalVersion = 1

// record is what is known of one name. A later one of the same name replaces
// the earlier, whose id it must keep unless that was freed in between.
type record struct {
	User  string    `json:"user,omitempty"`  // "alice@physics"
	Group string    `json:"group,omitempty"` // "physics" or "physics:higgs"
	ID    uint32    `json:"id,omitempty"`
	State State     `json:"state,omitempty"`
	Time  time.Time `json:"time,omitzero"`
	Seen  time.Time `json:"seen,omitzero"`
	Proof string    `json:"proof,omitempty"`
	Sub   uint32    `json:"sub,omitempty"` // the first of its subordinate ids
	// Boot and Ticks say when the id became durable, in package process's clock.
	Boot  string `json:"boot,omitempty"`
	Ticks uint64 `json:"ticks,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is one line's content.
type line struct {
	Version int      `json:"version,omitempty"`
	Records []record `json:"records,omitempty"`
}

func (l line) encode() ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body), nil
}

// decodeLine reads a line without its end, and reports whether it is a whole one.
func decodeLine(text []byte) (l line, ok bool) {
	if len(text) < 10 || text[8] != ' ' {
		return l, false
	}
	sum, err := strconv.ParseUint(string(text[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(text[9:], castagnoli) {
		return l, false
	}
	return l, json.Unmarshal(text[9:], &l) == nil
}

// decode reads a journal. What a crash tore off can only be its last line: a
// bad one that a good one follows is damage, and an error.
func decode(data []byte) ([]record, error) {
	var records []record
	torn := 0
	for n := 1; len(data) > 0; n++ {
		text, rest, whole := bytes.Cut(data, []byte{'\n'})
		data = rest
		l, ok := decodeLine(text)
		if !ok || !whole {
			torn = n
			continue
		}
		if torn != 0 {
			return nil, xos.Errorf(xos.Internal, "the account map is damaged at line %d", torn).
				WithHint("restore it from a backup: without it, uids could be given twice")
		}
		if n == 1 && l.Version != journalVersion {
			return nil, xos.Errorf(xos.NotSupported, "the account map has version %d, this program knows version %d", l.Version, journalVersion)
		}
		records = append(records, l.Records...)
	}
	if torn == 1 {
		return nil, xos.Errorf(xos.Internal, "the account map is damaged from its beginning").
			WithHint("restore it from a backup: without it, uids could be given twice")
	}
	return records, nil
}

// journal appends records.
type journal struct {
	f    file
	size int64 // of what is safely written
	// broken is set when it is no longer known what the disk holds.
	broken error
}

// readJournal gives the records on disk.
func readJournal(d disk) ([]record, error) {
	data, err := d.ReadFile(journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "reading the account map: %w", err)
	}
	if len(data) == 0 {
		return nil, xos.Errorf(xos.Internal, "the account map is empty, which it never was").
			WithHint("restore it from a backup: without it, uids could be given twice")
	}
	return decode(data)
}

// newJournal replaces the journal by one of just these records.
func newJournal(d disk, records []record) (*journal, error) {
	lines := []line{{Version: journalVersion}}
	for len(records) > 0 {
		n := min(len(records), 64)
		lines = append(lines, line{Records: records[:n]})
		records = records[n:]
	}
	var data []byte
	for _, l := range lines {
		text, err := l.encode()
		if err != nil {
			return nil, err
		}
		data = append(data, text...)
	}
	f, err := d.Create(journalNew)
	if err != nil {
		return nil, xos.Errorf(xos.Internal, "writing the account map: %w", err)
	}
	write := func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := d.Rename(journalNew, journalName); err != nil {
			return err
		}
		return d.SyncDir()
	}
	if err := write(); err != nil {
		f.Close()
		return nil, xos.Errorf(xos.Internal, "writing the account map: %w", err)
	}
	return &journal{f: f, size: int64(len(data))}, nil
}

// append makes records durable, or fails; after a failure that leaves it open
// what is on disk, every further call fails too.
func (j *journal) append(records ...record) error {
	if j.broken != nil {
		return xos.Errorf(xos.Unavailable, "the account map could not be written earlier: %w", j.broken).
			WithHint("restart xos-node once the disk is well")
	}
	data, err := line{Records: records}.encode()
	if err != nil {
		return err
	}
	if _, err := j.f.Write(data); err != nil {
		// Most likely a full disk: take back what was written of it.
		if terr := j.f.Truncate(j.size); terr != nil {
			j.broken = errors.Join(err, terr)
		}
		return xos.Errorf(xos.TooLarge, "writing the account map: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		j.broken = err
		return xos.Errorf(xos.Unavailable, "writing the account map: %w", err)
	}
	j.size += int64(len(data))
	return nil
}
