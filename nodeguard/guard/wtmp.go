package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxWtmp is how large a VO's wtmp gets before it is begun anew.
const maxWtmp = 1 << 20

// addWtmp adds to the machine's wtmp what has come to a VO's since it was added
// last. Beside the VO's there is how far that is, OWN.at, and while it is done what
// is added and where, OWN.doing: by that it is found out after a death whether it
// was. All of these are in /run, and end with what they tell of.
func addWtmp(own, machine string) error {
	data, err := os.ReadFile(own)
	if err != nil {
		return ignoreMissing(err)
	}
	data = data[:len(data)/recordSize*recordSize]
	mark := own + ".at"
	from := 0
	if text, err := os.ReadFile(mark); err == nil {
		from, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if from < 0 || from > len(data) || from%recordSize != 0 { // made anew
		from = 0
	}
	if from == len(data) {
		return nil
	}
	f, err := locked(machine, os.O_APPEND)
	if err != nil {
		return ignoreMissing(err) // nobody keeps one here
	}
	defer f.Close()
	doing := own + ".doing"
	if to, err := added(f, data, from, doing); err != nil {
		return err
	} else if to > from {
		from = to
		if err := replace(mark, strconv.Itoa(from)+"\n"); err != nil {
			return err
		}
	}
	if from < len(data) {
		if err := appendRecords(f, data, from, doing); err != nil {
			return err
		}
	}
	told := len(data)
	var failed error
	if told >= maxWtmp {
		var empty bool
		if empty, failed = rotate(own, int64(told)); empty {
			told = 0
		}
	}
	if err := replace(mark, strconv.Itoa(told)+"\n"); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, ignoreMissing(os.Remove(doing)))
}

func replace(path, text string) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// added says how far data was added to the machine's file, beyond from, by one who
// died before it could note that. A record that it had not written in full is taken back.
func added(f *os.File, data []byte, from int, doing string) (int, error) {
	text, err := os.ReadFile(doing)
	if err != nil {
		return from, ignoreMissing(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return from, err
	}
	var began, to int
	var at int64
	var inode uint64
	if n, _ := fmt.Sscan(string(text), &began, &to, &at, &inode); n != 4 || began != from || to <= from || to > len(data) || inode != st.Ino || at < 0 || at >= st.Size {
		return from, nil
	}
	there := make([]byte, min(int64(to-from), st.Size-at))
	if _, err := f.ReadAt(there, at); err != nil {
		return from, err
	}
	n := 0
	for n+recordSize <= len(there) && bytes.Equal(there[n:n+recordSize], data[from+n:from+n+recordSize]) {
		n += recordSize
	}
	if torn := there[n:]; len(torn) > 0 && at+int64(len(there)) == st.Size && len(torn) < recordSize && bytes.HasPrefix(data[from+n:], torn) {
		if err := f.Truncate(at + int64(n)); err != nil {
			return from, err
		}
	}
	return from + n, nil
}

// appendRecords adds data beyond from, all of it or nothing. Others who keep the
// file wait for its lock, so what is added is where it ends now.
func appendRecords(f *os.File, data []byte, from int, doing string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if err := replace(doing, fmt.Sprintln(from, len(data), st.Size, st.Ino)); err != nil {
		return err
	}
	if _, err := f.Write(data[from:]); err != nil {
		return errors.Join(err, f.Truncate(st.Size))
	}
	return nil
}

// rotate empties a file that nothing was added to since it had this size: it is
// in memory, and the machine's has all of it.
func rotate(path string, size int64) (empty bool, err error) {
	f, err := locked(path, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != size {
		return false, err
	}
	err = f.Truncate(0)
	return err == nil, err
}
