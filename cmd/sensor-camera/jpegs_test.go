package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image/jpeg"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/mjpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// pieces is a pipe that gives a text in pieces of one length.
type pieces struct {
	text  []byte
	piece int
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

func (p *pieces) Read(dst []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(dst, p.text[:min(p.piece, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// split gives all that a stream of pictures has, read in pieces of that length
// into slots of that many bytes.
func split(t *testing.T, text []byte, piece, slotBytes int) (pictures [][]byte, corrupt []string) {
	t.Helper()
	return splitBy(t, splitter(text, piece), len(text), slotBytes)
}

func splitter(text []byte, piece int) *jpegFrames {
	return &jpegFrames{source: source{pipe: &pieces{text, piece}, patience: time.Second, now: func() msg.Stamp { return msg.Stamp{} }, alive: func() {}}}
}

func splitBy(t *testing.T, j *jpegFrames, bytesOfText, slotBytes int) (pictures [][]byte, corrupt []string) {
	t.Helper()
	slot := make([]byte, slotBytes)
	for range 2*bytesOfText + 2 { // no more than can be told of each byte
		got, err := j.next(context.Background(), slot)
		switch {
		case errors.Is(err, io.EOF):
			return pictures, corrupt
		case err != nil:
			t.Fatal(err)
		case errors.As(got.corrupt, new(*textError)):
		case got.corrupt != nil:
			corrupt = append(corrupt, got.corrupt.Error())
		default:
			pictures = append(pictures, bytes.Clone(slot[:got.bytes]))
		}
	}
	t.Fatalf("%d bytes do not come to an end", bytesOfText)
	return nil, nil
}

// made is a picture with everything that may mislead who looks for its end.
func made() []byte {
	thumbnail := []byte{0xff, 0xd8, 0xff, 0xdb, 0, 3, 7, 0xff, 0xda, 0, 2, 1, 2, 3, 0xff, 0xd9}
	p := []byte{0xff, 0xd8}
	p = append(p, 0xff, 0xff, 0xff, 0xe1, 0, byte(2+len(thumbnail))) // after fill bytes
	p = append(p, thumbnail...)
	p = append(p, 0xff, 0xfe, 0, 4, 0xff, 0xd9)                                  // a comment: the end's marker
	p = append(p, 0xff, 0x01)                                                    // TEM has no segment
	p = append(p, 0xff, 0xda, 0, 3, 0xff, 1, 0xff, 0, 2, 0xff, 0xd0, 3, 0xff, 0) // a scan: stuffing, a restart
	p = append(p, 4, 0xff, 0xff, 0xd7, 0, 0, 0xff, 0xff, 0xc4, 0, 2, 0xff, 0xda) // the next scan, after a table
	return append(p, 0, 2, 5, 0xff, 0, 0xff, 0xdc, 0, 4, 1, 2, 0xff, 0xff, 0xd9) // ... and a number of lines
}

func TestPicturesAreSplitByTheirMarkers(t *testing.T) {
	size := pixel.Size{Width: 96, Height: 64}
	one, err := draw(pixel.MJPEG, size, 1)
	must(t, err)
	two, err := draw(pixel.MJPEG, size, 2)
	must(t, err)
	stream := slices.Concat(one, made(), make([]byte, 100), two, withThumbnail(two), []byte{0xff, 0xff, 0}, made(), made(), []byte{0})
	want := [][]byte{one, made(), two, withThumbnail(two), made(), made()}
	for _, piece := range []int{1, 2, 3, 5, 64, 1000, len(stream)} {
		for _, slotBytes := range []int{len(withThumbnail(two)) + 1, 1 << 20} {
			got, corrupt := split(t, stream, piece, slotBytes)
			if diff := cmp.Diff(want, got); diff != "" || len(corrupt) > 0 {
				t.Errorf("in pieces of %d into %d bytes: corrupt %q, %d pictures; want none, %d", piece, slotBytes, corrupt, len(got), len(want))
			}
		}
	}
}

func TestBadPicturesAreRefusedAndTheNextFound(t *testing.T) {
	good := made()
	long := slices.Concat(good[:len(good)-2], bytes.Repeat([]byte{9}, 200), []byte{0xff, 0xd9})
	for _, test := range []struct {
		name   string
		bad    []byte
		refuse int
	}{
		{"noise", []byte("noi\x01se"), 1},
		{"cut in the header", good[:30], 1},
		{"segment of no length", []byte{0xff, 0xd8, 0xff, 0xe0, 0, 1, 2, 3}, 1},
		{"restart in the header", []byte{0xff, 0xd8, 0xff, 0xd0, 1, 2, 3}, 1},
		{"marker that is none", []byte{0xff, 0xd8, 0xff, 0x02, 1, 2, 3}, 1},
		{"no marker", []byte{0xff, 0xd8, 0xff, 0xe0, 0, 2, 7, 7, 7, 0xff, 0xda, 1, 0xff, 0xd9}, 1},
		{"longer than a slot", long, 1},
		{"garbage and text", []byte("\x11\x22\x33 text\n\x99"), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := slices.Concat(good, test.bad, good, good)
			for _, piece := range []int{1, 3, len(stream)} {
				got, corrupt := split(t, stream, piece, len(good)+100)
				// A segment's length of a picture that was cut may cover the next one.
				if len(corrupt) != test.refuse || len(got) < 2 || !bytes.Equal(got[0], good) || !bytes.Equal(got[len(got)-1], good) {
					t.Errorf("in pieces of %d: %d pictures, refused %q; want the good ones, %d refused", piece, len(got), corrupt, test.refuse)
				}
			}
		})
	}
}

// What cameras and commands write between pictures is skipped without a count,
// and a picture whose end marker is missing is complete where the next one begins.
func TestWhatStandsBetweenPictures(t *testing.T) {
	one, err := draw(pixel.MJPEG, pixel.Size{Width: 96, Height: 64}, 1)
	must(t, err)
	unended := one[:len(one)-2]
	head := []byte("\r\n--frame\r\nContent-Type: image/jpeg\r\nX-Timestamp: 12.5\r\nContent-Length: 123\r\n\r\n")
	for _, test := range []struct {
		name     string
		between  []byte
		pictures [][]byte // the stream is: picture, between, picture, between
		said     string
	}{
		{"zeros", make([]byte, 4096), [][]byte{one, one}, ""},
		{"fill bytes", bytes.Repeat([]byte{0xff}, 33), [][]byte{one, one}, ""},
		{"end marker twice", []byte{0xff, 0xd9}, [][]byte{one, one}, ""},
		{"end marker twice, and padding", []byte{0, 0, 0xff, 0xd9, 0, 0xff, 0xff, 0xd9, 0xff}, [][]byte{one, one}, ""},
		{"head of a part", head, [][]byte{one, one}, ""},
		{"text", []byte("warning: frame dropped\nGerät belegt\r\n"), [][]byte{one, one}, "warning: frame dropped\nGerät belegt\nwarning: frame dropped\nGerät belegt\n"},
		{"nothing, no end marker", nil, [][]byte{unended, unended}, ""},
		{"zeros, no end marker", make([]byte, 100), [][]byte{unended, unended}, ""},
		{"head of a part, no end marker", head, [][]byte{unended, unended}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := []byte{}
			for _, p := range test.pictures {
				stream = append(append(stream, p...), test.between...)
			}
			for _, piece := range []int{1, 2, 3, 7, 1000, len(stream)} {
				var said []byte
				j := splitter(stream, piece)
				j.gap.words = func(line []byte) { said = append(said, line...) }
				got, corrupt := splitBy(t, j, len(stream), 1<<20)
				if diff := cmp.Diff([][]byte{one, one}, got); diff != "" || len(corrupt) > 0 {
					t.Errorf("in pieces of %d: corrupt %q, %d pictures; want none, 2", piece, corrupt, len(got))
				}
				if string(said) != test.said {
					t.Errorf("in pieces of %d: it said %q; want %q", piece, said, test.said)
				}
			}
		})
	}
}

// A picture that is cut short looks like one without an end marker: its pixels
// tell which it is.
func TestPicturesCutShortAreRefused(t *testing.T) {
	size := pixel.Size{Width: 96, Height: 64}
	one, err := draw(pixel.MJPEG, size, 1)
	must(t, err)
	check, err := newJPEGCheck(size)
	must(t, err)
	defer check.close()
	for _, test := range []struct {
		name string
		n    int
		good bool
	}{{"whole", len(one) - 2, true}, {"most of it", len(one) * 9 / 10, false}, {"some bytes short", len(one) - 12, false}} {
		stream := slices.Concat(one[:test.n], one)
		got, corrupt := split(t, stream, len(stream), 1<<20)
		if len(got) != 2 || len(corrupt) != 0 {
			t.Fatalf("%s: %d pictures, refused %q; want 2", test.name, len(got), corrupt)
		}
		if err := check.check(got[0], true); (err == nil) != test.good || err != nil && !strings.HasPrefix(err.Error(), "cut short: no end marker") {
			t.Errorf("check(%s) = %v; want it good: %v", test.name, err, test.good)
		}
		if err := check.check(got[1], false); err != nil {
			t.Errorf("check(the next one) = %v; want nil", err)
		}
	}
}

// A camera's pictures without Huffman tables come out as files for everybody.
func TestPicturesGetTheirHuffmanTables(t *testing.T) {
	one, err := draw(pixel.MJPEG, pixel.Size{Width: 96, Height: 64}, 1)
	must(t, err)
	bare := withoutTables(t, one)
	if _, err := jpeg.Decode(bytes.NewReader(bare)); err == nil {
		t.Fatal("image/jpeg decodes a picture without Huffman tables: this test shows nothing")
	}
	for _, piece := range []int{1, 100, 2 * len(bare)} {
		got, corrupt := split(t, slices.Concat(bare, bare), piece, 1<<20)
		if len(got) != 2 || len(corrupt) != 0 {
			t.Fatalf("in pieces of %d: %d pictures, refused %q; want 2", piece, len(got), corrupt)
		}
		for _, p := range got {
			if _, err := jpeg.Decode(bytes.NewReader(p)); err != nil {
				t.Errorf("image/jpeg: %v; want a picture", err)
			}
		}
	}
}

// A driver's buffer may be padded, and its picture may lack tables and end marker.
func TestPicturesInDriversBuffers(t *testing.T) {
	one, err := draw(pixel.MJPEG, pixel.Size{Width: 96, Height: 64}, 1)
	must(t, err)
	bare := withoutTables(t, one)
	zeros := make([]byte, 3000)
	for name, buffer := range map[string][]byte{
		"whole": one, "padded": slices.Concat(one, zeros), "without tables": slices.Concat(bare, zeros),
		"without an end": bare[:len(bare)-2], "without an end, padded": slices.Concat(bare[:len(bare)-2], zeros),
	} {
		slot := slices.Concat(buffer, make([]byte, mjpeg.MostAdded))
		got := buffered(shot{}, slot, len(buffer))
		if got.corrupt != nil {
			t.Errorf("%s: %v; want a picture", name, got.corrupt)
		} else if _, err := jpeg.Decode(bytes.NewReader(slot[:got.bytes])); err != nil || got.bytes > len(one)+mjpeg.MostAdded {
			t.Errorf("%s: %d bytes, image/jpeg: %v; want a picture", name, got.bytes, err)
		}
		if unended := strings.Contains(name, "without an end"); got.unended != unended {
			t.Errorf("%s: unended = %v; want %v", name, got.unended, unended)
		}
	}
	if got := buffered(shot{}, one, 300); got.corrupt == nil {
		t.Error("a picture cut in its header is no corrupt frame")
	}
}

// withoutTables removes a picture's Huffman tables (DHT, 0xffc4).
func withoutTables(t *testing.T, picture []byte) []byte {
	t.Helper()
	out := slices.Clone(picture[:2])
	for at := 2; picture[at+1] != 0xda; {
		next := at + 2 + int(binary.BigEndian.Uint16(picture[at+2:]))
		if picture[at+1] != 0xc4 {
			out = append(out, picture[at:next]...)
		}
		picture, at = picture[next-2:], 2
	}
	return append(out, picture[2:]...)
}

func FuzzSplit(f *testing.F) {
	f.Add(made(), uint8(1))
	f.Add(slices.Concat(made(), []byte("noise"), made()[:20], made()), uint8(5))
	f.Add([]byte{0xff, 0xd8, 0xff}, uint8(2))
	f.Add(slices.Concat(made()[:len(made())-2], []byte("\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n"), made(), []byte{0xff, 0xd9}), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		const slotBytes = 700
		whole, refused := split(t, text, max(len(text), 1), slotBytes)
		total := 0
		for _, p := range whole {
			if n, ended, err := mjpeg.Length(p); n != len(p) || !ended || err != nil {
				t.Errorf("picture of %d bytes: Length() = %d, %v, %v", len(p), n, ended, err)
			}
			total += len(p) - mjpeg.MostAdded
		}
		if total > len(text) {
			t.Errorf("%d bytes of pictures from %d", total, len(text))
		}
		again, refusedAgain := split(t, text, int(piece)+1, slotBytes)
		if !slices.EqualFunc(whole, again, bytes.Equal) || len(refused) != len(refusedAgain) {
			t.Errorf("%d pictures and %d refused at once; %d and %d in pieces of %d", len(whole), len(refused), len(again), len(refusedAgain), int(piece)+1)
		}
	})
}
