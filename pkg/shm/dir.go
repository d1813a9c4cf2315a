package shm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/internal/private"
)

// Name is the name of a ring: words of a-z, 0-9, _ and - joined by dots, as
// "porch.video".
type Name string

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*$`)

func (n Name) check() error {
	if len(n) > 120 || !nameRE.MatchString(string(n)) {
		return fmt.Errorf("ring name %q: want words of a-z 0-9 _ - joined by dots, 120 bytes at most", string(n))
	}
	return nil
}

// Epoch names one run of a writer. Later runs within one boot have greater
// epochs. It is written as 16 hexadecimal digits.
type Epoch uint64

func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// MarshalText writes the 16 digits.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (e *Epoch) UnmarshalText(text []byte) error {
	parsed, err := ParseEpoch(string(text))
	*e = parsed
	return err
}

// ParseEpoch reads 16 lower-case hexadecimal digits.
func ParseEpoch(s string) (Epoch, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || Epoch(v).String() != s {
		return 0, fmt.Errorf("epoch %q: want 16 lower-case hexadecimal digits", s)
	}
	return Epoch(v), nil
}

// Dir is a folder of rings.
type Dir struct{ root *os.Root }

// OpenDir opens the folder, making it (0700) where it is absent. A folder of
// another user, or one that others may enter, is refused: who can truncate a
// mapped file can kill its readers.
func OpenDir(path string) (*Dir, error) {
	root, err := private.Open(path, "shm_dir", 0o077)
	if err != nil {
		return nil, err
	}
	return &Dir{root}, nil
}

// Path is the folder's path, for messages.
func (d *Dir) Path() string { return d.root.Name() }

// Close closes the folder. Readers opened in it stay open; a Writer needs its
// folder until its own Close.
func (d *Dir) Close() error { return d.root.Close() }

// Rings lists the rings that have a current epoch.
func (d *Dir) Rings() ([]Name, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list rings: %w", err)
	}
	var names []Name
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".cur"); ok && Name(name).check() == nil {
			names = append(names, Name(name))
		}
	}
	return names, nil
}

// Epochs lists the epochs of a ring that still have files, oldest first.
func (d *Dir) Epochs(name Name) ([]Epoch, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list epochs of %s: %w", name, err)
	}
	var epochs []Epoch
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), string(name)+".")
		digits, isCtl := strings.CutSuffix(rest, ".ctl")
		if epoch, err := ParseEpoch(digits); ok && isCtl && err == nil {
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	return epochs, nil
}

// Current is the epoch of the ring's last writer. It fails with ErrNoRing or
// *FormatError.
func (d *Dir) Current(name Name) (Epoch, error) {
	f, err := openFile(d, string(name)+".cur", os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, fmt.Errorf("read current epoch: %w", err)
	}
	epoch, err := ParseEpoch(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return 0, &FormatError{f.Name(), err.Error()}
	}
	return epoch, nil
}

// HasWriter says whether a live process writes the ring.
func (d *Dir) HasWriter(name Name) bool { return lockfile.Held(d.root, string(name)+".lock") }

// Sweep removes every ring whose writer is gone and returns their names, but for
// those that keep says are still wanted, since a reader has yet to drain them; nil
// keeps none. A supervisor calls it before its fleet starts and after it stopped.
func (d *Dir) Sweep(keep func(Name) bool) ([]Name, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list rings: %w", err)
	}
	byRing := map[Name][]string{}
	for _, e := range entries {
		if name, ok := ringOf(e.Name()); ok && e.Type().IsRegular() && (keep == nil || !keep(name)) {
			byRing[name] = append(byRing[name], e.Name())
		}
	}
	var swept []Name
	var errs []error
	for name, files := range byRing {
		lock, err := lockfile.Acquire(d.root, string(name)+".lock")
		if held := (*lockfile.HeldError)(nil); errors.As(err, &held) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, f := range files {
			if !strings.HasSuffix(f, ".lock") {
				errs = append(errs, ignoreAbsent(d.root.Remove(f)))
			}
		}
		errs = append(errs, lock.Release())
		swept = append(swept, name)
	}
	slices.Sort(swept)
	return swept, errors.Join(errs...)
}

// ringOf tells which ring a file belongs to.
func ringOf(file string) (Name, bool) {
	for _, suffix := range []string{".ctl", ".dat"} {
		if base, ok := strings.CutSuffix(file, suffix); ok && len(base) > 17 {
			_, err := ParseEpoch(base[len(base)-16:])
			name := Name(base[:len(base)-17])
			return name, err == nil && base[len(base)-17] == '.' && name.check() == nil
		}
	}
	for _, suffix := range []string{".cur", ".cur.new", ".lock"} {
		if base, ok := strings.CutSuffix(file, suffix); ok {
			return Name(base), Name(base).check() == nil
		}
	}
	return "", false
}

// remove takes the slots first: killed in between, it leaves the file by which
// Epochs finds what is left to remove.
func (d *Dir) remove(name Name, e Epoch) error {
	if err := ignoreAbsent(d.root.Remove(fileName(name, e, "dat"))); err != nil {
		return err
	}
	return ignoreAbsent(d.root.Remove(fileName(name, e, "ctl")))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func fileName(name Name, e Epoch, ext string) string { return fmt.Sprintf("%s.%s.%s", name, e, ext) }
