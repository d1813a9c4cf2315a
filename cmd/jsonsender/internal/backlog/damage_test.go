package backlog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/faultfs"
)

// image is a log's folder in memory, so that one damage after the other can be tried.
type image struct {
	dir   string
	root  *os.Root
	files map[string][]byte
}

func takeImage(t testing.TB, dir string) *image {
	t.Helper()
	im := &image{dir: dir + "/log", root: openRoot(t, dir), files: map[string][]byte{}}
	names, err := filepath.Glob(im.dir + "/*")
	must(t, err)
	for _, n := range names {
		text, err := os.ReadFile(n)
		must(t, err)
		im.files[filepath.Base(n)] = text
	}
	return im
}

// put makes the folder what it was, but for one file.
func (im *image) put(t testing.TB, changed string, text []byte) {
	t.Helper()
	names, err := filepath.Glob(im.dir + "/*")
	must(t, err)
	for _, n := range names {
		if _, known := im.files[filepath.Base(n)]; !known {
			must(t, os.Remove(n))
		}
	}
	for n, old := range im.files {
		want := old
		if n == changed {
			want = text
		}
		if now, err := os.ReadFile(im.dir + "/" + n); err != nil || !bytes.Equal(now, want) {
			must(t, os.WriteFile(im.dir+"/"+n, want, 0o600))
		}
	}
}

// segment is the name of the only segment.
func (im *image) segment(t testing.TB) string {
	t.Helper()
	for n := range im.files {
		if filepath.Ext(n) == segmentExt {
			return n
		}
	}
	t.Fatal("no segment")
	return ""
}

// damagedLog is a log of six blocks of which the first record is acknowledged: two events, then
// one in each block. recycled is one whose file has held others before.
func damagedLog(t testing.TB, recycled bool) (im *image, want map[Position]string) {
	t.Helper()
	dir := ram(t)
	l := open(t, openRoot(t, dir), small())
	if recycled {
		for n := 0; l.seq < 5 || l.tail() == nil || l.tail().end > 8192; n++ {
			_, err := l.Append(numbered(Event, "old", n, 1000))
			must(t, err)
			drain(t, l)
		}
		for l.tail().seq == l.segments[0].seq && l.seq < 6 {
			_, err := l.Append(numbered(Event, "old", 0, 3000))
			must(t, err)
			drain(t, l)
		}
	}
	want = map[Position]string{}
	var first Position
	for n, count := range []int{2, 1, 1, 1, 1, 1} {
		var list []Entry
		for k := range count {
			list = append(list, numbered(Event, "e", 10*n+k, 40+200*(n%2)))
		}
		p, err := l.Append(list...)
		must(t, err)
		for k, e := range list {
			want[p+Position(k)] = string(e.Payload)
		}
		if n == 0 {
			first = p
		}
	}
	must(t, l.Sync())
	must(t, l.Ack(first))
	delete(want, first)
	must(t, l.Close())
	return takeImage(t, dir), want
}

// opened opens a damaged log and reads it. What is there was appended, and what is not is counted.
func opened(t testing.TB, im *image, want map[Position]string, how string) (got, lost int, rewound uint64) {
	t.Helper()
	l, err := Open(im.root, "log", small())
	if err != nil {
		t.Fatalf("%s: Open() = %v; want nil", how, err)
	}
	list, err := l.Peek(0, 100, 1<<20)
	if err != nil {
		t.Fatalf("%s: Peek() = %v; want nil", how, err)
	}
	before := Position(0)
	for _, e := range list {
		text, known := want[e.Position]
		if known && text != string(e.Payload) || e.Position <= before {
			t.Fatalf("%s: position %d, behind %d, holds %.40q; want %.40q", how, e.Position, before, e.Payload, text)
		}
		before = e.Position
		if known {
			got++
		}
	}
	st := l.Status()
	if int(st.Records) != len(list) {
		t.Fatalf("%s: Len() = %d; want %d", how, st.Records, len(list))
	}
	last := slices.Max(append(keys(want), 0))
	first, err := l.Append(numbered(Event, "new", 1, 10))
	if err != nil || first <= last {
		t.Fatalf("%s: Append() = %d, %v; want a position behind %d", how, first, err, last)
	}
	must(t, l.Close())
	again, err := Inspect(im.root, "log")
	if err != nil || again.Lost != st.Lost || again.Records != st.Records+1 {
		t.Fatalf("%s: the next look sees %+v, %v; want one record more than %+v", how, again, err, st)
	}
	return got, int(st.Lost), st.Rewound
}

func keys(m map[Position]string) (list []Position) {
	for p := range m {
		list = append(list, p)
	}
	return list
}

// A bit flips anywhere in what was written: one block is lost at most, and what is lost is
// counted.
func TestFlippedBits(t *testing.T) {
	sample := faultfs.NewSample(151)
	t.Log(sample)
	for i, recycled := range []bool{false, true} {
		im, want := damagedLog(t, recycled)
		seg := im.segment(t)
		text := im.files[seg]
		end := int(roundUp(int64(scan(text, number(t, seg)).end), pageBytes)) * 8
		lost := 0
		for bit := sample.Next(i, 0); bit < end; bit = sample.Next(i, bit+1) {
			how := fmt.Sprintf("bit %d of %d flipped (recycled: %v)", bit, end, recycled)
			flipped := slices.Clone(text)
			flipped[bit/8] ^= 1 << (bit % 8)
			im.put(t, seg, flipped)
			got, count, _ := opened(t, im, want, how)
			if missing := len(want) - got; missing > 1 || missing != count && !(missing == 0 && count == 1) {
				t.Fatalf("%s: %d records missing, %d counted; want one at most, and as many", how, missing, count)
			}
			lost += len(want) - got
		}
		t.Logf("%d records lost", lost)
	}
}

func number(t testing.TB, seg string) uint32 {
	t.Helper()
	seq, ok := parseName(seg, segmentExt)
	if !ok {
		t.Fatalf("%s is no segment's name", seg)
	}
	return seq
}

// The state has two slots: one flipped bit sends at most again what the last write
// acknowledged, and loses nothing.
func TestFlippedState(t *testing.T) {
	im, want := damagedLog(t, false)
	sample := faultfs.NewSample(53)
	t.Log(sample)
	text := im.files[stateName]
	for slot := range 2 {
		for bit := sample.Next(slot, 0); bit < 300*8; bit = sample.Next(slot, bit+1) {
			how := fmt.Sprintf("bit %d of slot %d flipped", bit, slot)
			flipped := slices.Clone(text)
			flipped[slot*slotBytes+bit/8] ^= 1 << (bit % 8)
			im.put(t, stateName, flipped)
			if got, lost, rewound := opened(t, im, want, how); got != len(want) || lost != 0 || rewound != 0 {
				t.Fatalf("%s: %d records, %d lost, rewound %d times; want %d, 0, 0", how, got, lost, rewound, len(want))
			}
		}
	}
	for what, bad := range map[string][]byte{"empty": nil, "short": text[:30], "zeros": make([]byte, 2*slotBytes), "foreign": bytes.Repeat([]byte("foreign "), slotBytes)} {
		im.put(t, stateName, bad)
		if got, lost, rewound := opened(t, im, want, what); got != len(want) || lost != 0 || rewound != 1 {
			t.Errorf("with a state that is %s: %d records, %d lost, rewound %d times; want %d, 0, 1", what, got, lost, rewound, len(want))
		}
	}
}

// A segment ends anywhere: the records before the cut are there.
func TestCutSegment(t *testing.T) {
	im, want := damagedLog(t, false)
	seg := im.segment(t)
	text := im.files[seg]
	c := scan(text, number(t, seg))
	sample := faultfs.NewSample(13)
	t.Log(sample)
	for at := sample.Next(0, 0); at <= int(c.end); at = sample.Next(0, at+1) {
		how := fmt.Sprintf("cut after %d of %d bytes", at, c.end)
		im.put(t, seg, text[:at])
		whole := -1 // the first record is acknowledged
		for _, b := range c.blocks {
			if b.off+b.size() <= int64(at) {
				whole += b.count
			}
		}
		if got, _, _ := opened(t, im, want, how); got != max(whole, 0) {
			t.Fatalf("%s: %d records; want %d", how, got, max(whole, 0))
		}
	}
}

// Foreign files in the folder are left alone.
func TestForeignFiles(t *testing.T) {
	im, want := damagedLog(t, false)
	must(t, os.WriteFile(im.dir+"/00000001.bak", []byte("x"), 0o600))
	must(t, os.WriteFile(im.dir+"/fffffffe.segment", []byte("x"), 0o600))
	must(t, os.WriteFile(im.dir+"/0000000a.segment", bytes.Repeat([]byte("foreign"), 30_000), 0o600))
	must(t, os.Mkdir(im.dir+"/0000000b.segment", 0o700))
	must(t, os.Symlink("/etc/passwd", im.dir+"/0000000c.segment"))
	must(t, syscall.Mkfifo(im.dir+"/0000000d.segment", 0o600))
	if got, lost, _ := opened(t, im, want, "foreign files"); got != len(want) || lost != 0 {
		t.Errorf("%d records, %d lost; want %d, 0", got, lost, len(want))
	}
	for _, n := range []string{"00000001.bak", "fffffffe.segment", "0000000b.segment", "0000000c.segment", "0000000d.segment"} {
		if _, err := os.Lstat(im.dir + "/" + n); err != nil {
			t.Error(err)
		}
	}
}

// A block that turns bad while the log is open costs itself, and is counted.
func TestDamageWhileOpen(t *testing.T) {
	dir := ram(t)
	l := open(t, openRoot(t, dir), small())
	for n := range 100 {
		_, err := l.Append(numbered(Event, "e", n, 1500))
		must(t, err)
	}
	must(t, l.Sync())
	path := fmt.Sprintf("%s/log/%s", dir, l.segments[0].name())
	text, err := os.ReadFile(path)
	must(t, err)
	c := scan(text, l.segments[0].seq)
	text[c.blocks[3].off+100]++ // its body
	text[c.blocks[5].off+20]++  // its header
	must(t, os.WriteFile(path, text, 0o600))
	got := drain(t, l)
	if len(got) != 98 || l.Lost() != 2 || l.Len() != 0 {
		t.Errorf("%d records, %d lost, Len() = %d; want 98, 2, 0", len(got), l.Lost(), l.Len())
	}
	must(t, l.Close())
}

// No bytes keep a log from opening, or make it give what nobody appended.
func FuzzOpen(f *testing.F) {
	im, _ := damagedLog(f, false)
	seg := im.files[im.segment(f)]
	f.Add(seg[:pageBytes], im.files[stateName][:200])
	f.Add(seg[100:pageBytes+300], []byte{})
	f.Add([]byte("magic"), im.files[stateName][slotBytes:])
	dir := ram(f)
	root := openRoot(f, dir)
	f.Fuzz(func(t *testing.T, segment, state []byte) {
		must(t, os.RemoveAll(dir+"/log"))
		must(t, os.Mkdir(dir+"/log", 0o700))
		must(t, os.WriteFile(dir+"/log/00000001.segment", segment, 0o600))
		must(t, os.WriteFile(dir+"/log/"+stateName, state, 0o600))
		l, err := Open(root, "log", small())
		must(t, err)
		before := len(drain(t, l))
		if before > 0 && len(segment) < headerBytes {
			t.Errorf("%d bytes gave %d records", len(segment), before)
		}
		first, err := l.Append(numbered(Event, "e", 1, 10))
		must(t, err)
		if list, err := l.Peek(0, 2, 1<<20); err != nil || len(list) != 1 || list[0].Position != first {
			t.Errorf("Peek() after one Append() = %v, %v; want that one, %d", positions(list), err, first)
		}
		must(t, l.Close())
	})
}

// FuzzDecode: a body with a good checksum, but of whatever bytes.
func FuzzDecode(f *testing.F) {
	code := newCoder()
	b, body, err := code.encode([]record{{Entry: Entry{Position: 7, Key: "k", Payload: []byte("text")}}}, 6, 7)
	must(f, err)
	f.Add(slices.Clone(body), b.raw, b.flags, uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, raw int, flags, count uint8) {
		b := block{prev: 6, last: 1 << 20, raw: raw & 0xffff, flags: flags, count: int(count), stored: len(body)}
		list, err := code.decode(b, body)
		if err != nil {
			return
		}
		at := b.prev
		for _, r := range list {
			if r.Position <= at || r.Position > b.last || r.Class > Event {
				t.Errorf("decode() gave position %d behind %d and class %d", r.Position, at, r.Class)
			}
			at = r.Position
		}
	})
}
