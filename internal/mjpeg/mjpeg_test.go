package mjpeg

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"slices"
	"testing"
)

// picture is a baseline JPEG as image/jpeg writes it: with the standard tables.
func picture(t testing.TB) []byte {
	t.Helper()
	img := image.NewYCbCr(image.Rect(0, 0, 96, 64), image.YCbCrSubsampleRatio420)
	for i := range img.Y {
		img.Y[i] = byte(i*7) ^ byte(i>>4)
	}
	for i := range img.Cb {
		img.Cb[i], img.Cr[i] = byte(i*3), byte(i*5)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// without removes a picture's segments of that kind.
func without(t testing.TB, b []byte, code byte) []byte {
	t.Helper()
	out := slices.Clone(b[:2])
	for pos := 2; ; {
		got, _, next := segmentAt(b, pos)
		if got == markSOS {
			return append(out, b[pos:]...)
		}
		if next == 0 {
			t.Fatalf("no segment at %d", pos)
		}
		if got != code {
			out = append(out, b[pos:next]...)
		}
		pos = next
	}
}

func decode(t *testing.T, b []byte) image.Image {
	t.Helper()
	img, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("image/jpeg: %v", err)
	}
	return img
}

// What a camera left out is put in so that a strict decoder finds the same pixels.
func TestCompleteMakesAPictureThatAnyProgramOpens(t *testing.T) {
	good := picture(t)
	bare := without(t, good, markDHT)
	if _, err := jpeg.Decode(bytes.NewReader(bare)); err == nil {
		t.Fatal("image/jpeg decodes a picture without Huffman tables: this test shows nothing")
	}
	avi1 := slices.Concat(bare[:2], []byte{0xff, 0xe0, 0, 16}, []byte("AVI1"), make([]byte, 10), bare[2:])
	for _, test := range []struct {
		name  string
		given []byte
		ended bool
	}{
		{"complete", good, true},
		{"without tables", bare, true},
		{"AVI1", avi1, true},
		{"fill bytes before the scan", slices.Concat(bare[:2], []byte{0xff, 0xff}, bare[2:]), true},
		{"without an end", good[:len(good)-2], false},
		{"without both", bare[:len(bare)-2], false},
		{"without an end, padded", append(slices.Clone(bare[:len(bare)-2]), make([]byte, 999)...), false},
		{"without an end, before the head of the next part", append(slices.Clone(bare[:len(bare)-2]), "\r\n--ab\r\nContent-Type: image/jpeg\r\n\r\n"...), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			buf := append(slices.Clone(test.given), make([]byte, MostAdded)...)
			n, err := Complete(buf, len(test.given), test.ended)
			if err != nil {
				t.Fatal(err)
			}
			want, got := decode(t, good).(*image.YCbCr), decode(t, buf[:n]).(*image.YCbCr)
			if !bytes.Equal(got.Y, want.Y) || !bytes.Equal(got.Cb, want.Cb) || !bytes.Equal(got.Cr, want.Cr) {
				t.Error("the picture is another than that with its tables")
			}
			if length, ended, err := Length(buf[:n]); length != n || !ended || err != nil {
				t.Errorf("Length() = %d, %v, %v; want %d, with its end", length, ended, err, n)
			}
			again, err := Complete(append(slices.Clone(buf[:n]), make([]byte, MostAdded)...), n, true)
			if again != n || err != nil {
				t.Errorf("Complete() of a complete picture = %d, %v; want %d", again, err, n)
			}
		})
	}
	if n, err := Complete(bare, len(bare), true); err == nil {
		t.Errorf("Complete() without room = %d; want an error", n)
	}
}

// Only what is missing is put in: a table of the camera's own stays.
func TestCompleteKeepsTheCamerasOwnTables(t *testing.T) {
	good := picture(t)
	var first []byte // the luminance tables alone
	for pos := 2; first == nil; {
		code, body, next := segmentAt(good, pos)
		if code == markDHT {
			first = body[:2*17+12+162]
		}
		pos = next
	}
	bare := without(t, good, markDHT)
	given := slices.Concat(bare[:2], []byte{0xff, markDHT, 0, byte(2 + len(first))}, first, bare[2:])
	buf := append(slices.Clone(given), make([]byte, MostAdded)...)
	n, err := Complete(buf, len(given), true)
	if want := len(given) + 4 + 2*17 + 12 + 162; n != want || err != nil {
		t.Errorf("Complete() = %d, %v; want %d: two tables and no more", n, err, want)
	}
	decode(t, buf[:n])
	progressive := bytes.Replace(bare, []byte{0xff, markSOF0}, []byte{0xff, 0xc2}, 1)
	buf = append(slices.Clone(progressive), make([]byte, MostAdded)...)
	if n, err := Complete(buf, len(progressive), true); n != len(progressive) || err != nil {
		t.Errorf("Complete(progressive) = %d, %v; want it as it was: %d", n, err, len(progressive))
	}
}

// The segment is byte for byte what encoders with the standard tables write.
func TestStandardTables(t *testing.T) {
	good := picture(t)
	segment := tablesWithout(0)
	if len(segment) != tablesBytes || !bytes.Contains(good, segment) {
		t.Errorf("tablesWithout(none) = %d bytes % x; want the %d that image/jpeg writes", len(segment), segment, tablesBytes)
	}
}

func TestLength(t *testing.T) {
	good := picture(t)
	two := slices.Concat(good[:len(good)-2], good)
	if n, ended, err := Length(two); n != len(good)-2 || ended || err != nil {
		t.Errorf("Length(two, the first without an end) = %d, %v, %v; want %d", n, ended, err, len(good)-2)
	}
	if n, ended, err := Length(append(slices.Clone(good), 0, 0, 0)); n != len(good) || !ended || err != nil {
		t.Errorf("Length(padded) = %d, %v, %v; want %d", n, ended, err, len(good))
	}
	header := bytes.Index(good, []byte{0xff, markSOS})
	for n := range header {
		if got, _, err := Length(good[:n]); err == nil {
			t.Fatalf("Length(first %d bytes) = %d; want an error", n, got)
		}
	}
	if _, _, err := Length([]byte("\xff\xd8\xff\xe0\x00\x02\xff\xd8\xff\xe0")); !errors.Is(err, ErrNext) {
		t.Errorf("Length(a header, and another picture) error = %v; want ErrNext", err)
	}
}

// Whatever is completed stays a picture, and nothing of it is lost.
func FuzzComplete(f *testing.F) {
	good := picture(f)
	f.Add(good, true)
	f.Add(without(f, good, markDHT), true)
	f.Add(good[:len(good)-2], false)
	f.Add([]byte("\xff\xd8\xff\xc0\x00\x02\xff\xda\x00\x03\x02\x00\xff\xd9"), true)
	f.Fuzz(func(t *testing.T, b []byte, _ bool) {
		length, ended, err := Length(b)
		if err != nil {
			return
		}
		buf := append(slices.Clone(b[:length]), make([]byte, MostAdded)...)
		n, err := Complete(buf, length, ended)
		if err != nil && !ended {
			return // cut short within a segment
		}
		if err != nil || n > length+MostAdded {
			t.Fatalf("Complete() = %d, %v; want at most %d more than %d", n, err, MostAdded, length)
		}
		if again, whole, err := Length(buf[:n]); again != n || !whole || err != nil {
			t.Errorf("Length(completed) = %d, %v, %v; want %d, with its end", again, whole, err, n)
		}
	})
}

// A picture may end with any byte: none of it is taken for padding.
func TestTrimKeepsPixels(t *testing.T) {
	head := "\xff\xd8\xff\xda\x00\x02"
	for _, data := range []string{"1234", "1234\x00", "1234\x00\xff\x00", "1234\xff\x00", "\x00\xff\x00\x00"} {
		for _, padding := range []int{0, leastPadding, 4000} {
			picture := head + data
			if padding > 0 && data[len(data)-1] == 0 && data[len(data)-2] != 0xff {
				continue // no telling where the zeros of the pixels end
			}
			if got := trim(append([]byte(picture), make([]byte, padding)...)); got != len(picture) {
				t.Errorf("trim(%q and %d zeros) = %d; want %d", data, padding, got, len(picture))
			}
		}
	}
}
