package main

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/fakev4l2"
	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/pixel"
)

// patches are the colours of the tests' scene: stripes of the same width.
func patches() [][3]float64 {
	return [][3]float64{{0, 0, 0}, {32, 32, 32}, {64, 64, 64}, {128, 128, 128}, {192, 64, 48}, {224, 224, 224}, {255, 255, 255}, {20, 140, 200}}
}

func patch(x, width int) [3]float64 { return patches()[x*len(patches())/width] }

// toYCbCr is the formula of ITU-R BT.601-7 (2.5), BT.709-6 (3.2 to 3.5) and BT.2020-2
// (table 5); toRGB is its inverse.
func toYCbCr(c pixel.Colour, rgb [3]float64) [3]byte {
	kr, kb := shares(c.Matrix)
	y := kr*rgb[0] + (1-kr-kb)*rgb[1] + kb*rgb[2]
	cb, cr := (rgb[2]-y)/(2*(1-kb)), (rgb[0]-y)/(2*(1-kr))
	if c.Range == pixel.Limited {
		y, cb, cr = 16+y*219/255, cb*224/255, cr*224/255
	}
	level := func(v float64) byte { return byte(math.Round(min(max(v, 0), 255))) }
	return [3]byte{level(y), level(128 + cb), level(128 + cr)}
}

func toRGB(c pixel.Colour, v [3]byte) [3]float64 {
	y, cb, cr := float64(v[0]), float64(v[1])-128, float64(v[2])-128
	if c.Range == pixel.Limited {
		y, cb, cr = (y-16)*255/219, cb*255/224, cr*255/224
	}
	kr, kb := shares(c.Matrix)
	r, b := y+2*(1-kr)*cr, y+2*(1-kb)*cb
	return [3]float64{r, (y - kr*r - kb*b) / (1 - kr - kb), b}
}

func shares(m pixel.Matrix) (kr, kb float64) {
	switch m {
	case pixel.BT601:
		return 0.299, 0.114
	case pixel.BT709:
		return 0.2126, 0.0722
	case pixel.BT2020:
		return 0.2627, 0.0593
	}
	panic("no matrix: " + string(m))
}

// stripes is a yuv420 picture of the scene.
func stripes(s pixel.Size, c pixel.Colour) []byte {
	var out []byte
	for plane := range 3 {
		step := 1 + min(plane, 1)
		for range s.Height / step {
			for x := 0; x < s.Width; x += step {
				out = append(out, toYCbCr(c, patch(x, s.Width))[plane])
			}
		}
	}
	return out
}

// encode makes a file whose pictures have these samples, and that says what args do.
func encode(t *testing.T, name string, s pixel.Size, pixels []byte, args ...string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	must(t, os.WriteFile(raw, bytes.Repeat(pixels, 2), 0o600))
	path := filepath.Join(t.TempDir(), name)
	in := "yuv420p"
	if strings.HasPrefix(name, "j") {
		in = "yuvj420p"
	}
	if strings.HasPrefix(name, "rgb") {
		in = "rgb24"
	}
	tool(t, "ffmpeg", append(append([]string{"-v", "error", "-f", "rawvideo", "-pix_fmt", in, "-s", s.String(), "-r", "5", "-i", raw}, args...), path)...)
	return path
}

// shown are the colours of a frame's stripes, in its middle row.
func shown(t *testing.T, f pixel.Format, s pixel.Size, c pixel.Colour, frame []byte) (list [][3]float64) {
	t.Helper()
	at := func(x int) [3]float64 {
		y := s.Height / 2
		luma, chroma := s.Width*s.Height, s.Width*s.Height/4
		half := y/2*(s.Width/2) + x/2
		switch f {
		case pixel.NV12:
			return toRGB(c, [3]byte{frame[y*s.Width+x], frame[luma+y/2*s.Width+x&^1], frame[luma+y/2*s.Width+x|1]})
		case pixel.YUYV:
			row := frame[2*y*s.Width:]
			return toRGB(c, [3]byte{row[2*x], row[x/2*4+1], row[x/2*4+3]})
		case pixel.RGB24:
			p := frame[3*(y*s.Width+x):]
			return [3]float64{float64(p[0]), float64(p[1]), float64(p[2])}
		case pixel.MJPEG:
			img, err := jpeg.Decode(bytes.NewReader(frame))
			must(t, err)
			r, g, b, _ := img.At(x, y).RGBA()
			return [3]float64{float64(r >> 8), float64(g >> 8), float64(b >> 8)}
		}
		return toRGB(c, [3]byte{frame[y*s.Width+x], frame[luma+half], frame[luma+chroma+half]})
	}
	for i := range patches() {
		list = append(list, at((2*i+1)*s.Width/(2*len(patches()))))
	}
	return list
}

// wantScene wants the scene's colours within 2 levels, and of a picture that is
// compressed on the way within a few more.
func wantScene(t *testing.T, what string, got [][3]float64, most float64) {
	t.Helper()
	worst := 0.0
	for i, want := range patches() {
		for j := range want {
			worst = max(worst, math.Abs(min(max(got[i][j], 0), 255)-want[j]))
		}
	}
	if worst > most {
		t.Errorf("%s: worst difference from the scene %.1f levels; want %.1f at most: %.0f", what, worst, most, got)
	}
}

// Whatever a file says of its colours, or does not, the frames' own description of
// them gives the scene's: in each format, at the file's size and at another.
func TestFramesShowTheSceneOfAFile(t *testing.T) {
	limited := func(m pixel.Matrix) pixel.Colour { return pixel.Colour{Range: pixel.Limited, Matrix: m} }
	full := func(m pixel.Matrix) pixel.Colour { return pixel.Colour{Range: pixel.Full, Matrix: m} }
	small, hd := pixel.Size{Width: 256, Height: 64}, pixel.Size{Width: 1280, Height: 64}
	tags := func(r, m string) []string {
		return []string{"-vf", "setparams=range=" + r + ":colorspace=" + m, "-color_range", r, "-colorspace", m}
	}
	for _, tt := range []struct {
		name  string
		size  pixel.Size
		pixel pixel.Colour // of the file's samples
		args  []string
		key   pixel.Colour
		want  pixel.Colour // of frames in YCbCr
	}{
		{"tv601.mkv", small, limited(pixel.BT601), append(tags("tv", "smpte170m"), "-c:v", "ffv1"), pixel.Colour{}, limited(pixel.BT601)},
		{"tv709.mkv", small, limited(pixel.BT709), append(tags("tv", "bt709"), "-c:v", "ffv1"), pixel.Colour{}, limited(pixel.BT709)},
		{"tv2020.mkv", small, limited(pixel.BT2020), append(tags("tv", "bt2020nc"), "-c:v", "ffv1"), pixel.Colour{}, limited(pixel.BT2020)},
		{"pc601.mkv", small, full(pixel.BT601), append(tags("pc", "bt470bg"), "-c:v", "ffv1"), pixel.Colour{}, full(pixel.BT601)},
		{"pc709.webm", small, full(pixel.BT709), append(tags("pc", "bt709"), "-c:v", "libvpx-vp9", "-lossless", "1"), pixel.Colour{}, full(pixel.BT709)},
		{"pc601.webm", small, full(pixel.BT601), append(tags("pc", "bt470bg"), "-c:v", "libaom-av1", "-crf", "0", "-aom-params", "lossless=1", "-cpu-used", "8"), pixel.Colour{}, full(pixel.BT601)},
		{"j709.mp4", small, full(pixel.BT709), append(tags("pc", "bt709"), "-c:v", "libx264", "-qp", "0"), pixel.Colour{}, full(pixel.BT709)},
		{"j.mkv", small, full(pixel.BT601), []string{"-c:v", "libx264", "-qp", "0"}, pixel.Colour{}, full(pixel.BT601)},
		{"unsaid.avi", small, limited(pixel.BT601), []string{"-c:v", "rawvideo"}, pixel.Colour{}, limited(pixel.BT601)},
		{"unsaid-hd.avi", hd, limited(pixel.BT709), []string{"-c:v", "rawvideo"}, pixel.Colour{}, limited(pixel.BT709)},
		{"known-better.avi", hd, full(pixel.BT601), []string{"-c:v", "rawvideo"}, full(pixel.BT601), full(pixel.BT601)},
		{"rgb.mkv", small, pixel.Colour{}, []string{"-c:v", "ffv1", "-pix_fmt", "bgr0"}, pixel.Colour{}, limited(pixel.BT601)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pixels := stripes(tt.size, tt.pixel.Or(limited(pixel.BT601)))
			if strings.HasPrefix(tt.name, "rgb") {
				pixels = nil
				for i := range tt.size.Width * tt.size.Height {
					for _, v := range patch(i%tt.size.Width, tt.size.Width) {
						pixels = append(pixels, byte(v))
					}
				}
			}
			path := encode(t, tt.name, tt.size, pixels, tt.args...)
			v, err := ffmpeg.Probe(t.Context(), ffmpeg.File(path))
			must(t, err)
			var streams []StreamConfig
			for _, f := range pixel.Formats() {
				for _, s := range []pixel.Size{tt.size, {Width: 176, Height: 48}} {
					streams = append(streams, StreamConfig{Format: f, Size: s, Colour: colourOf(v, tt.key)})
				}
			}
			for i, frame := range converted(t, ffmpeg.File(path), streams) {
				f, s := streams[i].Format, streams[i].Size
				frames, err := settle(f, s, 5, "")
				must(t, err)
				frames.setColour(frameColour(f, streams[i].Colour))
				want := tt.want
				if f == pixel.RGB24 || f == pixel.MJPEG {
					want = pixel.DefaultColour(f)
				}
				if got := (pixel.Colour{Range: frames.ColourRange, Matrix: frames.ColourMatrix}); got != want {
					t.Errorf("%s: frames say %q; want %q", f, got, want)
					continue
				}
				most := 2.0
				if f == pixel.MJPEG || tt.pixel.Matrix == "" {
					most = 3 // ffmpeg's quality of 3, and its rounding of RGB
				}
				wantScene(t, fmt.Sprint(f, " ", s), shown(t, f, s, want, frame), most)
			}
		})
	}
}

// converted are the frames that ffmpeg makes for streams, in one run.
func converted(t *testing.T, in ffmpeg.Input, streams []StreamConfig) (frames [][]byte) {
	t.Helper()
	dir := t.TempDir()
	var args []string
	for i, s := range streams {
		out := fileOutput(s, s.Size, nil, 200*time.Millisecond)
		args = append(append(args, out[:slices.Index(out, ffmpeg.Timestamped()[0])]...), "-f", "rawvideo", filepath.Join(dir, fmt.Sprint(i)))
	}
	p, err := ffmpeg.Start(t.Context(), ffmpeg.FFmpeg(in, args...))
	must(t, err)
	must(t, p.Wait(limit))
	for i := range streams {
		frame, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		must(t, err)
		frames = append(frames, frame)
	}
	return frames
}

// A command cannot be asked: what it is says most.
func TestCommandColour(t *testing.T) {
	for _, tt := range []struct {
		command, size, format, key, want string
	}{
		{"rpicam-vid -t 0 --codec yuv420 --width 1920 --height 1080 -o -", "1920x1080", "yuv420", "auto", "bt601-full"},
		{"/usr/bin/libcamera-vid -n --codec=yuv420 -o -", "640x480", "yuv420", "auto", "bt601-full"},
		{"rpicam-vid -t 0 --codec libav --libav-format rawvideo -o -", "1280x720", "yuv420", "auto", "bt709"},
		{"rpicam-vid -t 0 --codec libav --libav-format rawvideo -o -", "640x480", "yuv420", "auto", "bt601"},
		{"rpicam-vid -t 0 --codec mjpeg -o -", "1920x1080", "mjpeg", "auto", "bt601-full"},
		{"rpicam-vid --codec yuv420 -o -", "1920x1080", "yuv420", "bt709", "bt709"},
		{"ffmpeg -i x -f rawvideo -pix_fmt yuvj420p -", "640x480", "yuv420", "auto", "bt601-full"},
		{"ffmpeg -i x -f rawvideo -pix_fmt yuv420p -", "1920x1080", "yuv420", "auto", "bt601"},
		{"cat frames", "1920x1080", "nv12", "auto", "bt601"},
		{"cat frames", "1920x1080", "nv12", "bt2020", "bt2020"},
	} {
		s := StreamConfig{Format: pixel.Format(tt.format)}
		var err error
		s.Size, err = pixel.ParseSize(tt.size)
		must(t, err)
		must(t, s.Colour.UnmarshalText([]byte(tt.key)))
		if got := commandColour(strings.Fields(tt.command), s); got.String() != tt.want {
			t.Errorf("commandColour(%q, %s, %s) = %q; want %q", tt.command, tt.size, tt.key, got, tt.want)
		}
	}
	shell := []string{"sh", "-c", "exec rpicam-vid -t 0 --codec 'yuv420' --width 1280 --height 720 -o - 2>/dev/null"}
	if got := commandColour(shell, StreamConfig{Format: pixel.YUV420, Size: pixel.Size{Width: 1280, Height: 720}}); got.String() != "bt601-full" {
		t.Errorf("commandColour(%q) = %q; want bt601-full", shell, got)
	}
}

// The header of frames has the colour of each kind of source.
func TestFramesSayTheirColour(t *testing.T) {
	size := pixel.Size{Width: 64, Height: 64}
	full := encode(t, "j709.mp4", size, stripes(size, pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709}),
		"-vf", "setparams=colorspace=bt709", "-colorspace", "bt709", "-c:v", "libx264", "-qp", "0")
	raw := filepath.Join(t.TempDir(), "raw")
	must(t, os.WriteFile(raw, make([]byte, 64*64*3/2*3), 0o600))
	jpegs := filepath.Join(t.TempDir(), "jpegs")
	picture, err := draw(pixel.MJPEG, pixel.Size{Width: 320, Height: 240}, 1)
	must(t, err)
	must(t, os.WriteFile(jpegs, bytes.Repeat(picture, 3), 0o600))
	for name, tt := range map[string]struct{ input, stream, want string }{
		"sim":      {`"sim:"`, `size = "64x64"`, scene.Colour().String()},
		"sim rgb":  {`"sim:"`, "size = \"64x64\"\nformat = \"rgb24\"", ""},
		"file":     {fmt.Sprintf("%q", "file:"+full), "", "bt709-full"},
		"override": {fmt.Sprintf("%q", "file:"+full), `colour = "bt601"`, "bt601"},
		"jpeg":     {fmt.Sprintf("%q", "file:"+full), `format = "mjpeg"`, "bt601-full"},
		"pale":     {fmt.Sprintf("%q", "exec:cat "+jpegs), "size = \"320x240\"\nformat = \"mjpeg\"\ncolour = \"bt601\"", "bt601"},
		"pictures": {fmt.Sprintf("%q", "exec:cat "+jpegs), "size = \"320x240\"\nformat = \"mjpeg\"", "bt601-full"},
		"command":  {fmt.Sprintf("%q", "exec:cat "+raw), "size = \"64x64\"\ncolour = \"bt709\"", "bt709"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, "input = "+tt.input+"\n[sensor.porch.stream.video]\n"+tt.stream)
			r := b.frames()
			b.start()
			f := r.next()
			defer f.Release()
			if got := (pixel.Colour{Range: f.ColourRange, Matrix: f.ColourMatrix}); got.String() != tt.want {
				t.Errorf("frames say %q; want %q", got, tt.want)
			}
		})
	}
}

func TestDeviceSaysItsColour(t *testing.T) {
	dev := plugIn(t, fakev4l2.Config{Width: 64, Height: 48, FourCC: "YUYV", FPS: 30, YCbCrEnc: 2, Quantization: 1})
	for key, want := range map[string]string{"auto": "bt709-full", "bt601": "bt601"} {
		b := newBox(t, fmt.Sprintf("input = \"v4l2:%s\"\n[sensor.porch.stream.video]\nsize = \"64x48\"\nformat = \"yuyv\"\ncolour = %q", dev.ByID(), key))
		r := b.frames()
		p := b.start()
		f := r.next()
		if got := f.Colour().String(); got != want {
			t.Errorf("colour = %q: frames say %q; want %q", key, got, want)
		}
		f.Release()
		p.signal(syscall.SIGTERM)
		p.exit()
	}
}

// The key is refused where nothing could go by it.
func TestColourKeyRefused(t *testing.T) {
	for _, tt := range []struct{ scheme, format, colour, want string }{
		{"sim", "yuv420", "bt709", "the simulated scene has colours of its own"},
		{"exec", "rgb24", "bt709", "rgb24 has no YCbCr"},
		{"v4l2", "mjpeg", "bt601", ""}, // a camera that breaks JFIF's rule
		{"exec", "yuv420", "bt2020-full", ""},
		{"file", "rgb24", "bt709", ""}, // of the file
		{"rtsp", "mjpeg", "bt709", ""},
		{"sim", "yuv420", "auto", ""},
	} {
		c := Config{Input: Address{Scheme: Scheme(tt.scheme)}}
		s := StreamConfig{Format: pixel.Format(tt.format)}
		must(t, s.Colour.UnmarshalText([]byte(tt.colour)))
		if err := c.checkColour(s); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("colour %s of %s: %s = %v; want %q", tt.colour, tt.scheme, tt.format, err, tt.want)
		}
	}
}
