package wiretest

import (
	"debug/elf"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// glibcMinor is of the oldest C library that modules are for, Debian 12's 2.36.
const glibcMinor = 36

// Gate holds a module to what may be in other programs' processes: libc and
// the given libraries, nothing exported but its entries, no Go, hardened, small,
// deaf to the environment, which in a set-uid program is its caller's, and loadable
// by Debian 12's C library, wherever it was built.
func Gate(t testing.TB, path string, libraries, exports []string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := os.Stat(path); err != nil || st.Size() >= 100<<10 {
		t.Errorf("%s has %d bytes, want less than 100 KiB (%v)", path, st.Size(), err)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		t.Error(err)
	}
	for _, l := range needed {
		if !slices.Contains(libraries, l) {
			t.Errorf("it needs %s", l)
		}
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Error(err)
	}
	var exported []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			exported = append(exported, s.Name)
		}
		if strings.HasPrefix(s.Name, "_cgo_") || strings.HasPrefix(s.Name, "runtime.") || strings.HasPrefix(s.Name, "pthread_create") ||
			strings.HasSuffix(s.Name, "getenv") && !strings.HasPrefix(s.Name, "pam_") {
			t.Errorf("it has %s", s.Name)
		}
	}
	imported, err := f.ImportedSymbols()
	if err != nil || len(imported) == 0 {
		t.Errorf("it imports %v (%v)", imported, err)
	}
	for _, s := range imported {
		version, ok := strings.CutPrefix(s.Version, "GLIBC_")
		if !ok {
			continue
		}
		var minor int
		if _, err := fmt.Sscanf(version, "2.%d", &minor); err != nil || minor > glibcMinor {
			t.Errorf("it needs %s of %s, which Debian 12 has not", s.Name, s.Version)
		}
	}
	slices.Sort(exported)
	slices.Sort(exports)
	if !slices.Equal(exported, exports) {
		t.Errorf("it exports %v, want %v", exported, exports)
	}
	relro := false
	for _, p := range f.Progs {
		relro = relro || p.Type == elf.PT_GNU_RELRO
		if p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0 {
			t.Error("its stack is executable")
		}
		if p.Type == elf.PT_TLS {
			t.Error("it keeps state for each thread")
		}
	}
	if !relro {
		t.Error("its relocations stay writable")
	}
	for tag, flag := range map[elf.DynTag]uint64{elf.DT_FLAGS: uint64(elf.DF_BIND_NOW), elf.DT_FLAGS_1: uint64(elf.DF_1_NODELETE)} {
		if v, err := f.DynValue(tag); err != nil || len(v) != 1 || v[0]&flag == 0 {
			t.Errorf("%v is %x, want %x in it", tag, v, flag)
		}
	}
}
