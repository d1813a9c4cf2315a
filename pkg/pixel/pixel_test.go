package pixel

import (
	"bytes"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestLayout(t *testing.T) {
	hd := Size{1920, 1080}
	tests := []struct {
		f      Format
		s      Size
		planes []Plane
		bytes  int
	}{
		{YUV420, hd, []Plane{{0, 1920, 1080}, {2073600, 960, 540}, {2592000, 960, 540}}, 3110400},
		{NV12, hd, []Plane{{0, 1920, 1080}, {2073600, 1920, 540}}, 3110400},
		{YUYV, hd, []Plane{{0, 3840, 1080}}, 4147200},
		{YUYV, Size{16, 17}, []Plane{{0, 32, 17}}, 544},
		{RGB24, hd, []Plane{{0, 5760, 1080}}, 6220800},
		{RGB24, Size{17, 19}, []Plane{{0, 51, 19}}, 969},
		{RGB24, Size{16384, 16384}, []Plane{{0, 49152, 16384}}, 805306368},
		{MJPEG, hd, nil, 4147200 + 65536},
	}
	for _, tt := range tests {
		planes, n, err := Layout(tt.f, tt.s)
		if err != nil || n != tt.bytes || !cmp.Equal(planes, tt.planes) {
			t.Errorf("Layout(%s, %s) = %v, %d, %v; want %v, %d", tt.f, tt.s, planes, n, err, tt.planes, tt.bytes)
		}
	}
}

func TestLayoutRefuses(t *testing.T) {
	tests := []struct {
		f    Format
		s    Size
		want string
	}{
		{"", Size{64, 64}, `lay out frame: format "": want yuv420, nv12, yuyv, rgb24 or mjpeg`},
		{YUV420, Size{}, "lay out frame: size 0x0: want sides of 16 to 16384 pixels"},
		{RGB24, Size{16385, 64}, "lay out frame: size 16385x64: want sides of 16 to 16384 pixels"},
		{RGB24, Size{64, -64}, "lay out frame: size 64x-64: want sides of 16 to 16384 pixels"},
		{YUV420, Size{65, 64}, "lay out frame: size 65x64: yuv420 wants an even width"},
		{NV12, Size{64, 65}, "lay out frame: size 64x65: nv12 wants an even height"},
		{YUYV, Size{65, 64}, "lay out frame: size 65x64: yuyv wants an even width"},
	}
	for _, tt := range tests {
		if _, _, err := Layout(tt.f, tt.s); err == nil || err.Error() != tt.want {
			t.Errorf("Layout(%q, %s) error = %v; want %s", tt.f, tt.s, err, tt.want)
		}
	}
}

func TestFormatNames(t *testing.T) {
	want := map[Format][2]string{
		YUV420: {"YU12", "yuv420p"},
		NV12:   {"NV12", "nv12"},
		YUYV:   {"YUYV", "yuyv422"},
		RGB24:  {"RGB3", "rgb24"},
		MJPEG:  {"MJPG", ""},
		"gif":  {"", ""},
	}
	for f, names := range want {
		if got := [2]string{f.FourCC(), f.FFmpeg()}; got != names {
			t.Errorf("%s: FourCC, FFmpeg = %q; want %q", f, got, names)
		}
	}
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); got != f || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v; want it back", f, got, err)
		}
	}
}

func TestParseFormatNamesTheNearest(t *testing.T) {
	for bad, want := range map[string]Format{
		"yuv240": YUV420, "yuv420p": YUV420, "NV12": NV12, "nv21": NV12, "yuyv422": YUYV,
		"YUYV": YUYV, "rgb": RGB24, "RGB3": RGB24, "jpeg": MJPEG, "mjpg": MJPEG,
	} {
		_, err := ParseFormat(bad)
		if err == nil || !strings.HasSuffix(err.Error(), `want yuv420, nv12, yuyv, rgb24 or mjpeg; did you mean "`+string(want)+`"?`) {
			t.Errorf("ParseFormat(%q) error = %v; want it to ask for %s", bad, err, want)
		}
	}
	for _, bad := range []string{"", "h264", "quite something else"} {
		if _, err := ParseFormat(bad); err == nil || !strings.HasSuffix(err.Error(), "or mjpeg") {
			t.Errorf("ParseFormat(%q) error = %v; want the list of formats", bad, err)
		}
	}
	if _, err := ParseFormat(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Errorf("ParseFormat(1 MiB) error = %v; want a short one", err)
	}
}

func TestParseSize(t *testing.T) {
	for _, good := range []string{"16x16", "1920x1080", "16384x16384"} {
		if s, err := ParseSize(good); err != nil || s.String() != good {
			t.Errorf("ParseSize(%q) = %s, %v; want it back", good, s, err)
		}
	}
	for bad, want := range map[string]string{
		"":               `parse size "": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"1920":           `parse size "1920": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"1920X1080":      `parse size "1920X1080": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"+64x64":         `parse size "+64x64": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"064x64":         `parse size "064x64": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		" 64x64":         `parse size " 64x64": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"64x64x3":        `parse size "64x64x3": want WIDTHxHEIGHT in pixels, such as 1280x720`,
		"99999999999x64": "parse size 99999999999x64: want sides of 16 to 16384 pixels",
		"-64x64":         "parse size -64x64: want sides of 16 to 16384 pixels",
		"15x64":          "parse size 15x64: want sides of 16 to 16384 pixels",
	} {
		if s, err := ParseSize(bad); err == nil || err.Error() != want {
			t.Errorf("ParseSize(%q) = %s, %v; want error %s", bad, s, err, want)
		}
	}
}

func TestTOML(t *testing.T) {
	var got struct {
		Size   Size   `toml:"size"`
		Format Format `toml:"format"`
	}
	if _, err := toml.Decode("size = \"640x480\"\nformat = \"nv12\"", &got); err != nil || got.Size != (Size{640, 480}) || got.Format != NV12 {
		t.Errorf("toml.Decode = %+v, %v; want 640x480 nv12", got, err)
	}
	if _, err := toml.Decode(`format = "nv21"`, &got); err == nil || !strings.Contains(err.Error(), `did you mean "nv12"?`) {
		t.Errorf("toml.Decode of a wrong format: error = %v; want the nearest name in it", err)
	}
}

func TestImagePlanesAreInPlace(t *testing.T) {
	s := Size{32, 16}
	for _, f := range Formats() {
		planes, n, _ := Layout(f, s)
		data := make([]byte, n+5)
		img, err := NewImage(f, s, data)
		if err != nil {
			t.Fatalf("NewImage(%s) error = %v", f, err)
		}
		if err := img.Check(); err != nil {
			t.Errorf("%s: Check() = %v; want nil", f, err)
		}
		for i, p := range planes {
			rows, err := img.Plane(i)
			if err != nil {
				t.Fatalf("%s: Plane(%d) error = %v", f, i, err)
			}
			for y := range rows.Count {
				for x := range rows.Row(y) {
					rows.Row(y)[x]++
				}
			}
			if rows.Count != p.Rows || rows.Width != p.Stride {
				t.Errorf("%s: Plane(%d) has %d rows of %d; want %d of %d", f, i, rows.Count, rows.Width, p.Rows, p.Stride)
			}
		}
		if want := append(bytes.Repeat([]byte{1}, n), 0, 0, 0, 0, 0); f != MJPEG && !bytes.Equal(data, want) {
			t.Errorf("%s: the rows do not cover each byte of the frame once", f)
		}
	}
}

func TestImageRefuses(t *testing.T) {
	s := Size{32, 16}
	ok := func() Image {
		img, _ := NewImage(NV12, s, make([]byte, 768))
		return img
	}
	const huge = int(^uint(0) >> 1)
	tests := map[string]func(*Image){
		"short data":         func(m *Image) { m.Data = m.Data[:767] },
		"no data":            func(m *Image) { m.Data = nil },
		"missing plane":      func(m *Image) { m.Planes = m.Planes[:1] },
		"extra plane":        func(m *Image) { m.Planes = append(m.Planes, Plane{}) },
		"stride under width": func(m *Image) { m.Planes[1].Stride = 31 },
		"negative stride":    func(m *Image) { m.Planes[1].Stride = -32 },
		"huge stride":        func(m *Image) { m.Planes[1].Stride = huge },
		"too few rows":       func(m *Image) { m.Planes[0].Rows = 15 },
		"negative offset":    func(m *Image) { m.Planes[0].Offset = -1 },
		"offset past end":    func(m *Image) { m.Planes[1].Offset = 513 },
		"huge offset":        func(m *Image) { m.Planes[1].Offset = huge },
		"other size":         func(m *Image) { m.Size.Height = 18 },
		"other format":       func(m *Image) { m.Format = YUV420 },
	}
	for name, spoil := range tests {
		img := ok()
		spoil(&img)
		if err := img.Check(); err == nil {
			t.Errorf("%s: Check() = nil; want an error", name)
		}
	}
	if err := new(Image).Check(); err == nil {
		t.Error("Image{}.Check() = nil; want an error")
	}
	if img, err := NewImage(NV12, s, make([]byte, 767)); err == nil {
		t.Errorf("NewImage(767 bytes) = %v; want an error", img)
	}
	if _, err := ok().Plane(2); err == nil {
		t.Error("Plane(2) of nv12: no error")
	}
	if _, err := ok().Plane(-1); err == nil {
		t.Error("Plane(-1): no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1920x1080")
	f.Add("yuv420p")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSize(text); err == nil && (s.String() != text || s.check() != nil) {
			t.Errorf("ParseSize(%q) = %+v", text, s)
		}
		if got, err := ParseFormat(text); err == nil && string(got) != text {
			t.Errorf("ParseFormat(%q) = %q", text, got)
		}
	})
}

// A plane that Plane hands out can be read to its last row, whatever the fields say.
func FuzzPlane(f *testing.F) {
	f.Add("nv12", 32, 16, 1, 512, 32, 8, 768)
	f.Add("yuyv", 16, 16, 0, 4, 1<<30, 16, 5000)
	f.Fuzz(func(t *testing.T, format string, w, h, i, offset, stride, rows, n int) {
		planes := make([]Plane, 3)
		if i >= 0 && i < 3 {
			planes[i] = Plane{offset, stride, rows}
		}
		img := Image{Format: Format(format), Size: Size{w, h}, Planes: planes, Data: make([]byte, uint(n)%(1<<16))}
		plane, err := img.Plane(i)
		if err != nil {
			return
		}
		for y := range plane.Count {
			_ = plane.Row(y)[plane.Width-1]
		}
	})
}
