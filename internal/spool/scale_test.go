package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/sidecar"
)

// many is how many files a store may well have after days without a network.
const many = 10_000

// fill puts files with sidecars into ready/, as they are on a disk.
func fill(t testing.TB, n int) *Spool {
	t.Helper()
	s, err := Open(ram(t), Work, Ready, Sent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	sum := sha256.Sum256([]byte(clip))
	for i := range n {
		id := sidecar.NewID("porch-clips", start(), 0x1234, uint64(i))
		side := describe(id, string(id)+".mp4")
		side.Bytes, side.SHA256 = int64(len(clip)), hex.EncodeToString(sum[:])
		side.Detections = make([]sidecar.Detection, 5)
		side.History = []sidecar.Event{event("born", "made by a test"), event("ready", "kept: made by a test")}
		text, err := side.Encode()
		if err = errors.Join(err, os.WriteFile(s.Path(Ready, string(id)+".json"), text, 0o600),
			os.WriteFile(s.Path(Ready, side.Name), []byte(clip), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestManyFiles(t *testing.T) {
	many := many
	s := fill(t, many)
	if entries, err := s.Entries(Ready); err != nil || len(entries) != many {
		t.Errorf("Entries() = %d files, %v; want %d", len(entries), err, many)
	}
	if r, err := s.Recover(recovery()); err != nil || anything(r) {
		t.Errorf("Recover() = %d, %v; want nothing to do", len(r.Recovered), err)
	}
	list, err := s.folder(Ready)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range list.files { // a third without a sidecar, a third without a file
		p := s.Path(Ready, f.Name)
		if i%3 == 0 {
			p = s.Path(Ready, string(f.ID)+".json")
		}
		if i%3 < 2 {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := s.Recover(recovery())
	if err != nil || len(r.Recovered) != (many+2)/3 || r.Orphans != (many+1)/3 || len(r.Damaged)+r.Finished+len(r.Foreign) > 0 {
		t.Errorf("Recover() = %d recovered, %d orphans, %v; want %d and %d", len(r.Recovered), r.Orphans, err, (many+2)/3, (many+1)/3)
	}
	if r, err := s.Recover(recovery()); err != nil || anything(r) {
		t.Errorf("the second Recover() = %d recovered, %d orphans, %v; want nothing to do", len(r.Recovered), r.Orphans, err)
	}
}

// The sidecars that we write are not decoded one by one, and what only looks
// like one is.
func TestDeepReadsNoMoreThanItMust(t *testing.T) {
	s := openStates(t, Ready)
	side := put(t, s, Ready, heldID, clip)
	text := readText(t, s.Path(Ready, string(heldID)+".json"))
	r := recoverer{Spool: s, how: recovery()}
	folder, err := r.deep(Ready)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	e := Entry{ID: heldID, Name: side.Name, Bytes: side.Bytes}
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"as it was written":    {text, true},
		"of another version":   {strings.Replace(text, "1", "2", 1), false},
		"of another name":      {strings.Replace(text, ".mp4", ".mpg", 1), false},
		"of another length":    {strings.Replace(text, fmt.Sprint(side.Bytes), "7", 1), false},
		"torn":                 {text[:len(text)-9], false},
		"with a nested length": {strings.Replace(text, fmt.Sprintf("\n  \"bytes\": %d,", side.Bytes), "\n  \"in\": {\n    \"bytes\": 21,\n  \"a\": 1},", 1), false},
		"as another writes it": {strings.ReplaceAll(text, "\n  ", ""), false},
	} {
		if err := os.WriteFile(s.Path(Ready, string(heldID)+".json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := r.tells(folder, e); got != c.want {
			t.Errorf("tells() of a sidecar %s = %v; want %v", name, got, c.want)
		}
	}
}

func BenchmarkManyFiles(b *testing.B) {
	many := many
	s := fill(b, many)
	for name, look := range map[string]func() error{
		"Entries":      func() error { _, err := s.Entries(Ready); return err },
		"Recover":      func() error { how := recovery(); how.Deep = false; _, err := s.Recover(how); return err },
		"Recover deep": func() error { _, err := s.Recover(recovery()); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := look(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(many)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric(growth(b, look), "heap-MB")
		})
	}
}

// growth is how much larger the heap is when a look is over than before it, with
// all that it made on the way.
func growth(b *testing.B, look func() error) float64 {
	b.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := look(); err != nil {
		b.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return max(0, float64(after.HeapAlloc)-float64(before.HeapAlloc)) / 1e6
}
