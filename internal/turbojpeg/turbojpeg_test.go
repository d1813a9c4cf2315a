package turbojpeg

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

// smooth is a frame whose every sample is known (want), and that JPEG keeps well.
func smooth(t testing.TB, f pixel.Format, s pixel.Size) pixel.Image {
	t.Helper()
	_, n, err := pixel.Layout(f, s)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pixel.NewImage(f, s, make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	if f != pixel.RGB24 {
		img.Colour = jfif()
	}
	for i := range img.Planes {
		rows, _ := img.Plane(i)
		for y := range rows.Count {
			for x := range rows.Width {
				rows.Row(y)[x] = sample(img, i, x, y)
			}
		}
	}
	return img
}

// want is Y, Cb, Cr of the test picture at a pixel.
func want(s pixel.Size, x, y int) [3]int {
	return [3]int{80 + 100*x/s.Width, 96 + 64*y/s.Height, 160 - 64*x/s.Width}
}

func sample(img pixel.Image, plane, x, y int) byte {
	s := img.Size
	switch img.Format {
	case pixel.YUV420:
		if plane > 0 {
			return byte(want(s, 2*x, 2*y)[plane])
		}
	case pixel.NV12:
		if plane > 0 {
			return byte(want(s, x&^1, 2*y)[1+x%2])
		}
	case pixel.YUYV:
		return byte(want(s, x/2, y)[[4]int{0, 1, 0, 2}[x%4]])
	case pixel.RGB24:
		v := want(s, x/3, y)
		cb, cr := v[1]-128, v[2]-128
		return byte([3]int{v[0] + cr*1402/1000, v[0] - cb*344/1000 - cr*714/1000, v[0] + cb*1772/1000}[x%3])
	}
	return byte(want(s, x, y)[0])
}

func checkPicture(t *testing.T, name string, at func(x, y int) [3]int, s pixel.Size, tolerance int) {
	t.Helper()
	for y := 0; y < s.Height; y += 7 {
		for x := 0; x < s.Width; x += 5 {
			got, want := at(x, y), want(s, x, y)
			for c := range got {
				if got[c] < want[c]-tolerance || got[c] > want[c]+tolerance {
					t.Fatalf("%s: Y, Cb, Cr at %d,%d = %v; want %v within %d", name, x, y, got, want, tolerance)
				}
			}
		}
	}
}

func frameAt(t *testing.T, img pixel.Image) func(x, y int) [3]int {
	t.Helper()
	var p planar
	for i := range p {
		var err error
		if p[i], err = img.Plane(i); err != nil {
			t.Fatal(err)
		}
	}
	return func(x, y int) [3]int {
		return [3]int{int(p[0].Row(y)[x]), int(p[1].Row(y / 2)[x/2]), int(p[2].Row(y / 2)[x/2])}
	}
}

func encoder(t testing.TB) *Encoder {
	t.Helper()
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func decoder(t testing.TB) *Decoder {
	t.Helper()
	d, err := NewDecoder(pixel.Size{Width: 2048, Height: 2048})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Both image/jpeg and our decoder find the samples that went into the encoder.
func TestRoundTrip(t *testing.T) {
	e, d := encoder(t), decoder(t)
	for _, s := range []pixel.Size{{Width: 640, Height: 480}, {Width: 16, Height: 16}, {Width: 70, Height: 38}, {Width: 1920, Height: 1080}} {
		for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
			name := string(f) + " " + s.String()
			picture, err := e.Encode(smooth(t, f, s), 92)
			if err != nil {
				t.Fatalf("Encode(%s) error = %v", name, err)
			}
			std, err := jpeg.Decode(bytes.NewReader(picture))
			if err != nil {
				t.Fatalf("%s: image/jpeg: %v", name, err)
			}
			if got := (pixel.Size{Width: std.Bounds().Dx(), Height: std.Bounds().Dy()}); got != s {
				t.Errorf("%s: image/jpeg finds size %s", name, got)
			}
			y := std.(*image.YCbCr)
			checkPicture(t, name+" by image/jpeg", func(px, py int) [3]int {
				c := y.YCbCrAt(px, py)
				return [3]int{int(c.Y), int(c.Cb), int(c.Cr)}
			}, s, 9)
			img, err := d.Decode(picture, make([]byte, 2*s.Width*s.Height))
			if err != nil {
				t.Fatalf("Decode(%s) error = %v", name, err)
			}
			checkPicture(t, name, frameAt(t, img), s, 9)
		}
	}
}

// Rows may be padded: the encoder goes by the planes that the image states.
func TestEncodePaddedRows(t *testing.T) {
	s := pixel.Size{Width: 70, Height: 38}
	e := encoder(t)
	for _, f := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		tight := smooth(t, f, s)
		padded := pixel.Image{Format: f, Size: s, Colour: tight.Colour}
		for i := range tight.Planes {
			rows, _ := tight.Plane(i)
			p := pixel.Plane{Offset: len(padded.Data) + 3, Stride: rows.Width + 11 + i, Rows: rows.Count}
			plane := make([]byte, 3+p.Stride*p.Rows)
			for y := range rows.Count {
				copy(plane[3+y*p.Stride:], rows.Row(y))
			}
			padded.Planes, padded.Data = append(padded.Planes, p), append(padded.Data, plane...)
		}
		want, _ := e.Encode(tight, 80)
		want = bytes.Clone(want)
		if got, err := e.Encode(padded, 80); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Encode(padded %s) = %d bytes, %v; want the %d bytes of the tight frame", f, len(got), err, len(want))
		}
	}
}

func TestDecodeSubsampling(t *testing.T) {
	s := pixel.Size{Width: 128, Height: 96}
	e, d := encoder(t), decoder(t)
	out := make([]byte, worstBytes(s, S444))
	for sub, chroma := range map[Subsampling][2]int{S444: {1, 1}, S422: {2, 1}, S420: {2, 2}, S440: {1, 2}, Grey: {0, 0}} {
		src := planar{rows(s.Width, s.Height)}
		if sub != Grey {
			src[1] = rows(s.Width/chroma[0], s.Height/chroma[1])
			src[2] = src[1]
		}
		take(nil, &src[0], &src[1], &src[2])
		for c, p := range src {
			for y := range p.Count {
				for x := range p.Width {
					p.Row(y)[x] = byte(want(s, x*s.Width/p.Width, y*s.Height/p.Count)[c])
				}
			}
		}
		n, err := e.h.compressYUV(src, s, sub, 95, out)
		if err != nil {
			t.Fatalf("%s: compress: %v", sub, err)
		}
		if head, err := d.Header(out[:n]); err != nil || head != (Header{s, sub}) {
			t.Errorf("Header() = %+v, %v; want %s %s", head, err, s, sub)
		}
		img, err := d.Decode(out[:n], make([]byte, 128*96*3/2))
		if err != nil {
			t.Fatalf("%s: Decode() error = %v", sub, err)
		}
		at := frameAt(t, img)
		checkPicture(t, sub.String(), func(x, y int) [3]int {
			got := at(x, y)
			if sub == Grey && got[1] == 128 && got[2] == 128 {
				got[1], got[2] = want(s, x, y)[1], want(s, x, y)[2]
			}
			return got
		}, s, 6)
	}
}

func TestShrinkIsTheMean(t *testing.T) {
	src := pixel.Rows{Pix: []byte{10, 20, 255, 255, 30, 41, 255, 254}, Stride: 4, Width: 4, Count: 2}
	tests := []struct {
		across, down int
		want         []byte
	}{
		{2, 2, []byte{25, 255}}, // 25.25, 254.75
		{1, 2, []byte{20, 31, 255, 255}},
		{2, 1, []byte{15, 255, 36, 255}},
	}
	for _, tt := range tests {
		dst := rows(4/tt.across, 2/tt.down)
		take(nil, &dst)
		shrink(dst, src, tt.across, tt.down)
		if !bytes.Equal(dst.Pix, tt.want) {
			t.Errorf("shrink by %dx%d = %v; want %v", tt.across, tt.down, dst.Pix, tt.want)
		}
	}
}

// flatJPEG is a grey picture written by hand, so that its sampling factors can be
// any: each block is two bits, "DC does not change" and "no AC".
func flatJPEG(w, h int, ids string, factors ...byte) []byte {
	b := []byte{0xff, 0xd8, 0xff, 0xdb, 0, 67, 0}
	b = append(b, bytes.Repeat([]byte{1}, 64)...)
	b = append(b, 0xff, 0xc0, 0, byte(8+3*len(factors)), 8, byte(h>>8), byte(h), byte(w>>8), byte(w), byte(len(factors)))
	blocks, across, down := 0, 1, 1
	for i, f := range factors {
		b = append(b, ids[i], f, 0)
		blocks += int(f>>4) * int(f&15)
		across, down = max(across, int(f>>4)), max(down, int(f&15))
	}
	for _, class := range []byte{0x00, 0x10} { // one code each: "0" for symbol 0
		b = append(b, 0xff, 0xc4, 0, 20, class, 1)
		b = append(b, make([]byte, 16)...)
	}
	b = append(b, 0xff, 0xda, 0, byte(6+2*len(factors)), byte(len(factors)))
	for i := range factors {
		b = append(b, ids[i], 0)
	}
	b = append(b, 0, 63, 0)
	if len(factors) == 1 { // not interleaved: factors do not count
		blocks, across, down = 1, 1, 1
	}
	mcus := ((w + 8*across - 1) / (8 * across)) * ((h + 8*down - 1) / (8 * down))
	b = append(b, make([]byte, (2*mcus*blocks+7)/8)...)
	return append(b, 0xff, 0xd9)
}

// A kind of subsampling can be stated with several sampling factors (ISO/IEC
// 10918-1, A.1.1). The library must write planes of the same size for all of them,
// and nothing behind. Odd sides are decoded without their last column or row.
func TestDecodeOddFactorsStaysInBounds(t *testing.T) {
	for _, s := range []pixel.Size{{Width: 64, Height: 64}, {Width: 63, Height: 64}, {Width: 64, Height: 63}, {Width: 63, Height: 61}, {Width: 17, Height: 17}} {
		for _, factors := range [][]byte{
			{0x11}, {0x22}, {0x33}, {0x44}, {0x14}, {0x41}, {0x13}, {0x31},
			{0x11, 0x11, 0x11}, {0x31, 0x31, 0x31}, {0x13, 0x13, 0x13}, {0x12, 0x12, 0x12}, {0x21, 0x21, 0x21},
			{0x21, 0x11, 0x11}, {0x22, 0x12, 0x12}, {0x12, 0x11, 0x11}, {0x22, 0x21, 0x21}, {0x22, 0x11, 0x11},
		} {
			name := fmt.Sprintf("%s, factors %x", s, factors)
			longer := even(s, true)
			n := DecodedBytes(s)
			d := decoder(t)
			d.scratch = bytes.Repeat([]byte{0xee}, 1<<16)
			dst := bytes.Repeat([]byte{0xee}, n+4096)
			picture := flatJPEG(s.Width, s.Height, "\x01\x02\x03", factors...)
			img, err := d.Decode(picture, dst)
			if err != nil {
				t.Errorf("%s: Decode() error = %v; want a picture", name, err)
				continue
			}
			if want := (pixel.Size{Width: s.Width &^ 1, Height: s.Height &^ 1}); img.Size != want || img.Check() != nil {
				t.Errorf("%s: Decode() is a picture of %s (%v); want %s", name, img.Size, img.Check(), want)
			}
			for i := range img.Planes {
				rows, _ := img.Plane(i)
				for y := range rows.Count {
					if row := rows.Row(y); !bytes.Equal(row, bytes.Repeat([]byte{128}, len(row))) {
						t.Fatalf("%s: row %d of plane %d = %x; want flat grey", name, y, i, row)
					}
				}
			}
			if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xee}, 4096)) {
				t.Errorf("%s: Decode() wrote beyond the frame", name)
			}
			head, _ := d.Header(picture)
			used := map[Subsampling]int{S444: 2 * longer.Width * longer.Height, S422: longer.Width * longer.Height, S440: longer.Width * longer.Height}[head.Subsampling]
			if !bytes.Equal(d.scratch[used:], bytes.Repeat([]byte{0xee}, len(d.scratch)-used)) {
				t.Errorf("%s: Decode() wrote beyond its %d bytes of scratch", name, used)
			}
		}
	}
}

// A picture of odd sides, as image/jpeg encodes it (4:2:0), shows the same scene.
func TestDecodeOddSize(t *testing.T) {
	s := pixel.Size{Width: 161, Height: 119}
	ycc := image.NewYCbCr(image.Rect(0, 0, s.Width, s.Height), image.YCbCrSubsampleRatio420)
	for i := range ycc.Y {
		ycc.Y[i] = byte(40 + i%ycc.YStride)
	}
	for i := range ycc.Cb {
		ycc.Cb[i], ycc.Cr[i] = byte(90+i/ycc.CStride), byte(160-i/ycc.CStride)
	}
	var text bytes.Buffer
	if err := jpeg.Encode(&text, ycc, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	d := decoder(t)
	img, err := d.Decode(text.Bytes(), make([]byte, DecodedBytes(s)))
	if err != nil || img.Size != (pixel.Size{Width: 160, Height: 118}) {
		t.Fatalf("Decode(161x119) = %s, %v; want 160x118", img.Size, err)
	}
	at := frameAt(t, img)
	for _, p := range [][2]int{{0, 0}, {80, 60}, {159, 117}, {3, 101}, {140, 7}} {
		want := ycc.YCbCrAt(p[0], p[1])
		got := at(p[0], p[1])
		for i, w := range []uint8{want.Y, want.Cb, want.Cr} {
			if d := got[i] - int(w); d < -4 || d > 4 {
				t.Errorf("sample %d at %v = %d; want %d", i, p, got[i], w)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	d := decoder(t)
	dst := make([]byte, 1<<20)
	tests := map[string]struct {
		picture []byte
		want    string
	}{
		"empty":        {nil, "no bytes"},
		"not a JPEG":   {[]byte("GIF89a, say"), "corrupted: "},
		"tables only":  {[]byte{0xff, 0xd8, 0xff, 0xd9}, "corrupted: "},
		"too wide":     {flatJPEG(2049, 64, "\x01", 0x11), "size 2049x64: the limit is 2048x2048"},
		"absurd":       {flatJPEG(65500, 65500, "\x01", 0x11), "size 65500x65500: the limit is 2048x2048"},
		"beyond JPEG":  {flatJPEG(65535, 65535, "\x01", 0x11), "corrupted: "},
		"too small":    {flatJPEG(8, 8, "\x01", 0x11), "size 8x8: want sides of 16 to 16384"},
		"4:1:1":        {flatJPEG(64, 64, "\x01\x02\x03", 0x41, 0x11, 0x11), "colours (4:1:1): want YCbCr"},
		"RGB":          {flatJPEG(64, 64, "RGB", 0x11, 0x11, 0x11), "want YCbCr"},
		"odd sampling": {flatJPEG(64, 64, "\x01\x02\x03", 0x21, 0x12, 0x11), "corrupted: "},
		"dst short":    {flatJPEG(1024, 1024, "\x01", 0x11), "1048576 bytes: want 1572864 for yuv420 1024x1024"},
	}
	good := flatJPEG(64, 64, "\x01", 0x11)
	for name, tt := range tests {
		if _, err := d.Decode(tt.picture, dst); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Decode(%s) error = %v; want %q in it", name, err, tt.want)
		}
		if _, err := d.Decode(good, dst); err != nil {
			t.Errorf("Decode(a good picture after %s) error = %v; want nil", name, err)
		}
	}
}

func TestDecodeRefusesWhatIsCutShort(t *testing.T) {
	s := pixel.Size{Width: 160, Height: 120}
	e, d := encoder(t), decoder(t)
	dst := make([]byte, 160*120*3/2)
	for _, f := range []pixel.Format{pixel.YUV420, pixel.YUYV} {
		picture, _ := e.Encode(smooth(t, f, s), 85)
		for n := range len(picture) {
			if _, err := d.Decode(picture[:n], dst); err == nil {
				t.Errorf("Decode(%s, %d of %d bytes) = no error", f, n, len(picture))
			}
		}
		padded := append(bytes.Clone(picture), make([]byte, 5000)...)
		if _, err := d.Decode(padded, dst); err != nil {
			t.Errorf("Decode(%s and zeros behind) error = %v; want a picture", f, err)
		}
		damaged := bytes.Clone(picture)
		copy(damaged[len(damaged)*3/4:], []byte{0xff, 0xd0, 0xff, 0xd3})
		if _, err := d.Decode(damaged, dst); err == nil {
			t.Errorf("Decode(%s, damaged) = no error", f)
		}
	}
}

// Many cameras leave the Huffman tables out of their MJPEG (USB Video Class,
// payload document for MJPEG: the tables of ISO/IEC 10918-1, K.3, are meant).
func TestDecodeWithoutHuffmanTables(t *testing.T) {
	s := pixel.Size{Width: 160, Height: 120}
	picture, _ := encoder(t).Encode(smooth(t, pixel.YUYV, s), 85)
	bare := bytes.Clone(picture[:2])
	for i := 2; ; {
		length := 2 + int(picture[i+2])<<8 + int(picture[i+3])
		if picture[i+1] == 0xda {
			bare = append(bare, picture[i:]...)
			break
		}
		if picture[i+1] != 0xc4 {
			bare = append(bare, picture[i:i+length]...)
		}
		i += length
	}
	if len(bare) > len(picture)-400 {
		t.Fatalf("%d of %d bytes left: the tables are still in", len(bare), len(picture))
	}
	img, err := decoder(t).Decode(bare, make([]byte, 160*120*3/2))
	if err != nil {
		t.Fatalf("Decode() error = %v", err)
	}
	checkPicture(t, "bare", frameAt(t, img), s, 9)
}

func TestEncodeRefuses(t *testing.T) {
	e := encoder(t)
	ok := smooth(t, pixel.NV12, pixel.Size{Width: 64, Height: 64})
	short, none := ok, ok
	short.Data = short.Data[:len(short.Data)-1]
	none.Format = pixel.MJPEG
	none.Planes = nil
	tests := []struct {
		img     pixel.Image
		quality int
		want    string
	}{
		{ok, 0, "quality 0: want 1 to 100"},
		{ok, 101, "quality 101: want 1 to 100"},
		{short, 85, "the frame has 6143 bytes"},
		{none, 85, "want a raw format"},
		{pixel.Image{}, 85, `format "": want`},
	}
	for _, tt := range tests {
		if _, err := e.Encode(tt.img, tt.quality); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Encode(%s, %d) error = %v; want %q in it", tt.img.Format, tt.quality, err, tt.want)
		}
	}
}

func TestClosed(t *testing.T) {
	e, _ := NewEncoder()
	d, _ := NewDecoder(pixel.Size{Width: 64, Height: 64})
	img := smooth(t, pixel.YUV420, pixel.Size{Width: 64, Height: 64})
	picture, err := e.Encode(img, 85)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Close(), d.Close()); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if _, err := jpeg.Decode(bytes.NewReader(picture)); err != nil {
		t.Errorf("a picture from before Close: %v", err)
	}
	_, encodeErr := e.Encode(img, 85)
	_, headerErr := d.Header(picture)
	_, decodeErr := d.Decode(picture, img.Data)
	for i, err := range []error{encodeErr, headerErr, decodeErr, e.Close(), d.Close(), new(Encoder).Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("call %d after Close: error = %v; want ErrClosed", i, err)
		}
	}
}

// pixel.Layout's bound for mjpeg rests on this: noise is the worst that a camera
// can send.
func TestNoiseStaysUnderTheBoundOfMJPEG(t *testing.T) {
	s := pixel.Size{Width: 640, Height: 480}
	_, bound, _ := pixel.Layout(pixel.MJPEG, s)
	e, random := encoder(t), rand.New(rand.NewPCG(1, 2))
	for _, f := range []pixel.Format{pixel.YUV420, pixel.YUYV} {
		img := smooth(t, f, s)
		for i := range img.Data {
			img.Data[i] = byte(random.Uint32())
		}
		for _, q := range []int{85, 90, 95, 100} {
			picture, err := e.Encode(img, q)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("noise, %s, quality %d: %.2f bytes a pixel", f, q, float64(len(picture))/(640*480))
			if q <= 95 && len(picture) > bound-64<<10 {
				t.Errorf("noise of %s at quality %d takes %d bytes; want %d at most", f, q, len(picture), bound-64<<10)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	e := encoder(f)
	for _, format := range []pixel.Format{pixel.YUV420, pixel.YUYV} {
		picture, _ := e.Encode(smooth(f, format, pixel.Size{Width: 32, Height: 32}), 60)
		f.Add(bytes.Clone(picture))
	}
	f.Add(flatJPEG(64, 64, "\x01", 0x44))
	f.Add(flatJPEG(64, 64, "\x01\x02\x03", 0x31, 0x31, 0x31))
	f.Add(flatJPEG(64, 64, "\x01\x02\x03", 0x41, 0x11, 0x11))
	d, err := NewDecoder(pixel.Size{Width: 256, Height: 256})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	dst := make([]byte, 256*256*3/2+64)
	f.Fuzz(func(t *testing.T, picture []byte) {
		copy(dst[len(dst)-64:], bytes.Repeat([]byte{0xee}, 64))
		img, err := d.Decode(picture, dst)
		if err == nil && img.Check() != nil {
			t.Errorf("Decode() = %v; its Check() = %v", img.Size, img.Check())
		}
		if !bytes.Equal(dst[len(dst)-64:], bytes.Repeat([]byte{0xee}, 64)) {
			t.Error("Decode() wrote beyond the largest frame")
		}
	})
}
