package account

import (
	"io"
	"os"
	"path/filepath"
)

// disk is what the journal does to a directory, step by step, so that a crash
// can be thought of (and tested) between any two of them.
type disk interface {
	ReadFile(name string) ([]byte, error)
	Create(name string) (file, error) // truncates
	Rename(from, to string) error
	SyncDir() error
}

type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// directory is the disk proper. Files in it are for root only.
type directory string

func (d directory) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}

func (d directory) Create(name string) (file, error) {
	// With O_APPEND, what is written after Truncate goes to the new end.
	return os.OpenFile(filepath.Join(string(d), name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
}

func (d directory) Rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d directory) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
