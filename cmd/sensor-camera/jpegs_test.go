package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	j := &jpegFrames{source: source{pipe: &pieces{text, piece}, patience: time.Second, now: func() msg.Stamp { return msg.Stamp{} }, alive: func() {}}}
	slot := make([]byte, slotBytes)
	for range 2*len(text) + 2 { // no more than can be told of each byte
		got, err := j.next(context.Background(), slot)
		switch {
		case errors.Is(err, io.EOF):
			return pictures, corrupt
		case err != nil:
			t.Fatal(err)
		case got.corrupt != nil:
			corrupt = append(corrupt, got.corrupt.Error())
		default:
			pictures = append(pictures, bytes.Clone(slot[:got.bytes]))
		}
	}
	t.Fatalf("%d bytes do not come to an end", len(text))
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
		{"noise", []byte("noise"), 1},
		{"cut in the header", good[:30], 1},
		{"cut in the scan", good[:len(good)-8], 1},
		{"one byte short", good[:len(good)-1], 1},
		{"segment of no length", []byte{0xff, 0xd8, 0xff, 0xe0, 0, 1, 2, 3}, 1},
		{"restart in the header", []byte{0xff, 0xd8, 0xff, 0xd0, 1, 2, 3}, 1},
		{"marker that is none", []byte{0xff, 0xd8, 0xff, 0x02, 1, 2, 3}, 1},
		{"no marker", []byte{0xff, 0xd8, 0xff, 0xe0, 0, 2, 7, 7, 7, 0xff, 0xda, 1, 0xff, 0xd9}, 1},
		{"longer than a slot", long, 1},
		{"twice", slices.Concat(good[:len(good)-10], good[:len(good)-8]), 2},
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

func TestWholeJPEG(t *testing.T) {
	padded := append(made(), 0, 0, 0)
	if n, err := wholeJPEG(padded); n != len(made()) || err != nil {
		t.Errorf("wholeJPEG(padded) = %d, %v; want %d", n, err, len(made()))
	}
	for n := range made() {
		if got, err := wholeJPEG(made()[:n]); err == nil {
			t.Fatalf("wholeJPEG(first %d bytes) = %d; want an error", n, got)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(made(), uint8(1))
	f.Add(slices.Concat(made(), []byte("noise"), made()[:20], made()), uint8(5))
	f.Add([]byte{0xff, 0xd8, 0xff}, uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		const slotBytes = 100
		whole, refused := split(t, text, max(len(text), 1), slotBytes)
		total := 0
		for _, p := range whole {
			if n, err := wholeJPEG(p); n != len(p) || err != nil {
				t.Errorf("picture of %d bytes: wholeJPEG = %d, %v", len(p), n, err)
			}
			total += len(p)
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
