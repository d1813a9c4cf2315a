package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// indexed is what a sidx box says.
type indexed struct {
	scale   uint32
	entries []entry
}

// entry is a part of a file that begins with a key frame.
type entry struct {
	at    int64 // in the file
	bytes int64
	ticks uint32
	sap   uint32
}

// readIndex reads the boxes of a file, one after the other, and its sidx. It is
// written from the standard, and not from what writes the index.
func readIndex(t *testing.T, file []byte) (kinds []string, x indexed) {
	t.Helper()
	be := binary.BigEndian
	for at := 0; at < len(file); {
		if at+8 > len(file) {
			t.Fatalf("%d bytes are behind the last box", len(file)-at)
		}
		length, kind := int(be.Uint32(file[at:])), string(file[at+4:at+8])
		if length < 8 || at+length > len(file) {
			t.Fatalf("a box %s of %d bytes at byte %d of %d", kind, length, at, len(file))
		}
		kinds = append(kinds, kind)
		if kind == "sidx" {
			b := file[at+8 : at+length]
			if b[0] != 0 || be.Uint32(b[4:]) != 1 || be.Uint32(b[12:]) != 0 {
				t.Fatalf("sidx begins with %x; want version 0, track 1, and the time 0", b[:16])
			}
			x.scale = be.Uint32(b[8:])
			next := int64(at+length) + int64(be.Uint32(b[16:]))
			for n, rows := int(be.Uint16(b[22:])), b[24:]; n > 0; n-- {
				e := entry{at: next, bytes: int64(be.Uint32(rows)), ticks: be.Uint32(rows[4:]), sap: be.Uint32(rows[8:])}
				x.entries, next, rows = append(x.entries, e), next+e.bytes, rows[12:]
			}
		}
		at += length
	}
	return kinds, x
}

// wantIndexed wants a segment to have an index of those entries, which lead to
// key frames, and have all of it between them.
func wantIndexed(t *testing.T, path string, seconds ...float64) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kinds, x := readIndex(t, file)
	if i := slices.Index(kinds, "moof"); i < 2 || kinds[i-1] != "sidx" || kinds[1] != "moov" || kinds[len(kinds)-1] != "free" {
		t.Fatalf("the boxes are %v; want ftyp, moov, sidx before the first moof, and free at the end", kinds)
	}
	if len(x.entries) != len(seconds) {
		t.Fatalf("the index has %d entries: %+v; want %d", len(x.entries), x, len(seconds))
	}
	m, err := readFilm(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range x.entries {
		if got := float64(e.ticks) / float64(x.scale); got < seconds[i]-0.0001 || got > seconds[i]+0.0001 {
			t.Errorf("entry %d is %.4f s long; want %.4f", i, got, seconds[i])
		}
		if e.sap != 1<<31|1<<28 || string(file[e.at+4:e.at+8]) != "moof" {
			t.Errorf("entry %d leads to %q with %x; want a moof that begins with a key frame", i, file[e.at+4:e.at+8], e.sap)
		}
	}
	if last := x.entries[len(x.entries)-1]; last.at+last.bytes != m.whole {
		t.Errorf("the index ends at byte %d; want the end of the fragments, %d", last.at+last.bytes, m.whole)
	}
}

// A segment of 24 seconds has three key frames, an index that leads to them, and
// the time when its first frame was taken. What is sought is found.
func TestSegmentsCanBeSought(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, fleet("segment = \"24s\"\ncrf = 10"))
	c := newCamera(t, b, pixel.YUV420, small(), 5)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	at := c.bus.Clock().Now()
	at.Wall, at.Synced = time.Date(2026, 3, 1, 12, 0, 7, 600e6, time.UTC), true
	const interval = time.Second / 5
	for i := range 140 {
		if i == 120 {
			at.Synced = false // the second segment
		}
		c.publish(at)
		at = later(at, interval)
		if i == 70 { // the ring has 128 slots
			states.State("half of the frames", fed(71))
		}
	}
	states.State("all frames", fed(140))
	p.Stop()
	list := born(t, b)
	if got, want := briefs(list), "0-119, 120-139"; got != want {
		t.Fatalf("segments %s; want %s", got, want)
	}
	wantIndexed(t, where(b, list[0]), 8, 8, 8)
	wantIndexed(t, where(b, list[1]), 4)
	for i, want := range []string{"2026-03-01T12:00:07.000000Z", ""} {
		for _, from := range []string{"format_tags=creation_time", "stream_tags=creation_time"} {
			text, err := exec.Command("ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", from, where(b, list[i])).Output()
			if got := strings.TrimSpace(string(text)); err != nil || got != want {
				t.Errorf("segment %d has %s %q, %v; want %q", i, from, got, err, want)
			}
		}
	}
	if got := wantTrue(t, b, list[0]).duration; got != 24*time.Second {
		t.Errorf("ffprobe says that segment 0 lasts %s; want 24 s", got)
	}
	for _, seconds := range []int{0, 3, 8, 9, 17, 23} {
		out, err := exec.Command("ffmpeg", "-v", "error", "-ss", fmt.Sprint(seconds), "-i", where(b, list[0]), "-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-").CombinedOutput()
		want := (seconds * 5 * 5 % 200) * 255 / 219 // frame 5*seconds, in full range
		if err != nil || len(out) != small().Width*small().Height || int(out[0]) < want-3 || int(out[0]) > want+3 {
			t.Errorf("at %d s there is a picture of %d bytes and brightness %d, %v; want %d", seconds, len(out), out[:min(1, len(out))], err, want)
		}
	}
}

// A segment that is recovered has an index of what is left of it, whichever
// fragment it ends with.
func TestIndexOfARecoveredSegment(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	path := t.TempDir() + "/v.mp4"
	args := append([]string{"-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=3", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
		"-g", "25", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "200000"}, append(roomArgs(time.Second), path)...)
	if text, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, text)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readFilm(bytes.NewReader(whole), int64(len(whole)))
	if err != nil || len(all.shown) != 75 {
		t.Fatalf("readFilm = %d pictures, %v; want 75", len(all.shown), err)
	}
	created := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i, f := range all.fragments {
		m := all
		m.fragments, m.shown, m.whole = all.fragments[:i+1], all.shown[:f.pictures], f.bytes
		header, indexed, err := headerOf(bytes.NewReader(whole), m, created)
		if err != nil || !indexed || int64(len(header)) != m.header {
			t.Fatalf("headerOf = %d bytes, indexed: %v, %v; want as many as there are, %d", len(header), indexed, err, m.header)
		}
		if err := os.WriteFile(path, slices.Concat(header, whole[m.header:m.whole], lastBox()), 0o600); err != nil {
			t.Fatal(err)
		}
		var want []float64
		for left := float64(f.pictures) / 25; left > 0; left-- {
			want = append(want, min(left, 1))
		}
		wantIndexed(t, path, want...)
		if i%4 == 0 {
			if err := plays(t.Context(), path, f.pictures); err != nil {
				t.Errorf("cut behind fragment %d: %v", i, err)
			}
		}
	}
	// A header that has no room for an index gets the time all the same.
	bare := video(t)
	m, err := readFilm(bytes.NewReader(bare), int64(len(bare)))
	if err != nil {
		t.Fatal(err)
	}
	header, indexed, err := headerOf(bytes.NewReader(bare), m, created)
	if err != nil || int64(len(header)) != m.header {
		t.Fatalf("headerOf = %d bytes, %v; want %d", len(header), err, m.header)
	}
	if err := os.WriteFile(path, slices.Concat(header, bare[m.header:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := plays(t.Context(), path, len(m.shown)); err != nil {
		t.Errorf("with an index: %v, plays: %v; want that it does", indexed, err)
	}
}

// More key frames than there is room for: the last entry has the rest. Whatever
// the room, the boxes fill it exactly.
func TestIndexOfAnyRoom(t *testing.T) {
	m := film{scale: 90000, whole: 100 * 1000}
	for i := range 100 {
		m.fragments = append(m.fragments, fragment{begin: int64(i) * 1000, bytes: int64(i+1) * 1000, first: uint64(i) * 9000, last: uint64(i+1) * 9000, key: true})
	}
	for room := range 1500 {
		got := sidx(m, room)
		if left := room - len(got); left < 0 || left > 0 && left < 8 && len(got) > 0 {
			t.Fatalf("sidx in %d bytes has %d; want none left over, or room for a box", room, len(got))
		}
		if len(got) == 0 && room >= 64 {
			t.Fatalf("sidx in %d bytes is left out", room)
		}
		if len(got) > 0 {
			_, x := readIndex(t, got)
			bytes, ticks := int64(0), uint32(0)
			for _, e := range x.entries {
				bytes, ticks = bytes+e.bytes, ticks+e.ticks
			}
			if bytes != m.whole || ticks != 100*9000 {
				t.Fatalf("sidx in %d bytes lists %d bytes and %d ticks; want all of %d and %d", room, bytes, ticks, m.whole, 100*9000)
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	if _, err := exec.LookPath("ffmpeg"); err == nil {
		f.Add(video(f))
	}
	f.Add([]byte("\x00\x00\x00\x20moov\x00\x00\x00\x10mvhd\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := readFilm(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			return
		}
		if header, _, err := headerOf(bytes.NewReader(text), m, testBegin); err == nil && int64(len(header)) != m.header {
			t.Errorf("headerOf has %d bytes; want %d", len(header), m.header)
		}
	})
}
