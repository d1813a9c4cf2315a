package boxtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// NewFaulty makes a box whose cache and store are on a disk that can fail. The
// test looks at what is behind it, in Disk.
func NewFaulty(t testing.TB, entries string) (*Box, *faultfs.FS) {
	t.Helper()
	b := newBox(t)
	var faults *faultfs.FS
	faults, b.Disk = b.Faulty("disk")
	b.at = b.Dir + "/disk"
	b.Write(entries)
	return b, faults
}

// Faulty puts a folder of the box on a disk that can fail. behind it is what the
// test looks at.
func (b *Box) Faulty(folder string) (faults *faultfs.FS, behind string) {
	b.t.Helper()
	at, behind := filepath.Join(b.Dir, folder), filepath.Join(b.Dir, "behind")
	if err := errors.Join(os.Mkdir(at, 0o700), os.Mkdir(behind, 0o700)); err != nil {
		b.t.Fatal(err)
	}
	faults, err := faultfs.Mount(behind, at)
	b.mounted(at, err)
	return faults, behind
}

// Small puts a folder of the box on a disk of that many bytes.
func (b *Box) Small(folder string, bytes int64) (at string) {
	b.t.Helper()
	at = filepath.Join(b.Dir, folder)
	if err := os.MkdirAll(at, 0o700); err != nil {
		b.t.Fatal(err)
	}
	b.mounted(at, faultfs.Tmpfs(at, bytes))
	return at
}

// mounted skips the test where nothing can be mounted, and unmounts at its end.
func (b *Box) mounted(at string, err error) {
	b.t.Helper()
	if errors.Is(err, faultfs.ErrUnavailable) {
		b.t.Skip(err)
	} else if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := faultfs.Unmount(at); err != nil {
			b.t.Error(err)
		}
	})
}

// Has says whether a file is in a place, "cache/born", say.
func (b *Box) Has(side *sidecar.Sidecar, place string) bool {
	_, err := os.Lstat(filepath.Join(b.Disk, place, side.Name))
	return err == nil
}

// Is says whether it is there and nowhere else.
func (b *Box) Is(side *sidecar.Sidecar, place string) bool {
	b.t.Helper()
	return b.Has(side, place) && len(b.glob("/*/*/"+side.Name)) == 1
}

// Lies says where a file is. In each of these places it must be whole.
func (b *Box) Lies(side *sidecar.Sidecar) (places []string) {
	b.t.Helper()
	for _, p := range b.glob("/*/*/" + side.Name) {
		place := filepath.Dir(p)
		text, err := os.ReadFile(filepath.Join(b.Disk, p))
		if errors.Is(err, os.ErrNotExist) { // moved on meanwhile
			continue
		}
		if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != side.SHA256 {
			b.t.Errorf("%s has %d bytes of %s (%v) with another hash than its %d had", place, len(text), side.Name, err, side.Bytes)
		}
		places = append(places, place)
	}
	return places
}

// States is a file's history as the sidecar tells it that lies beside it.
func (b *Box) States(place string, id sidecar.ID) (list []string) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Disk, place, string(id)+".json"))
	if err != nil {
		b.t.Error(err)
		return nil
	}
	side, err := sidecar.Decode(text)
	if err != nil || side.ID != id {
		b.t.Errorf("%s has a sidecar of %s that is none: %v", place, id, err)
		return nil
	}
	for _, e := range side.History {
		list = append(list, e.State)
	}
	return list
}

// Litter lists what should be nowhere after an end: what is in work/, a
// worker's own account aside, and sidecars without their file.
func (b *Box) Litter() (list []string) {
	b.t.Helper()
	for _, p := range b.glob("/*/work/*") {
		if ext := filepath.Ext(p); ext != ".wear" && ext != ".sent" {
			list = append(list, p)
		}
	}
	for _, p := range b.glob("/*/*/*.json") {
		if stem := strings.TrimSuffix(p, ".json"); len(b.glob("/"+stem+".*")) < 2 && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// glob finds paths below the folder of cache and store.
func (b *Box) glob(pattern string) (found []string) {
	b.t.Helper()
	paths, err := filepath.Glob(b.Disk + pattern)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range paths {
		found = append(found, strings.TrimPrefix(p, b.Disk+"/"))
	}
	return found
}

// Recover settles what a kill left in cache and store, as the mover does. A file
// that lacks its sidecar, or is of another length, is an error of the test.
func (b *Box) Recover() {
	b.t.Helper()
	how := spool.Recovery{Deep: true, Alive: func() {}, Event: func(state, reason string) sidecar.Event {
		return sidecar.Event{State: state, Reason: reason, By: "test"}
	}, Describe: func(id sidecar.ID, name string) *sidecar.Sidecar {
		return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: name, Worker: id.Worker()}
	}}
	for _, dir := range []string{"cache", "store"} {
		sp, err := spool.Look(filepath.Join(b.Disk, dir))
		if errors.Is(err, os.ErrNotExist) { // the program needs none
			continue
		} else if err != nil {
			b.t.Fatal(err)
		}
		report, err := sp.Recover(how)
		if err = errors.Join(err, sp.Close()); err != nil || len(report.Recovered)+len(report.Damaged) > 0 {
			b.t.Errorf("Recover() of %s = %+v, %v; want leftovers at most", dir, report, err)
		}
	}
}
