package ffmpeg

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// counted counts reads.
type counted struct {
	io.Reader
	reads int
}

func (c *counted) Read(p []byte) (int, error) {
	c.reads++
	return c.Reader.Read(p)
}

// readFrames decodes a file to yuv420p and reads all of it.
func readFrames(t *testing.T, in Input, args ...string) (pts []time.Duration, sums [][sha256.Size]byte) {
	t.Helper()
	c := FFmpeg(in, append(append([]string{"-map", "0:V:0", "-pix_fmt", "yuv420p", "-c:v", "rawvideo"}, args...), Timestamped()...)...)
	c.Stdout = true
	p := start(t, c)
	from := &counted{Reader: p.Stdout}
	frames := NewFrameReader(from)
	for n := 0; ; n++ {
		before := from.reads
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if reads := from.reads - before; n > 0 && reads > 16 {
			t.Errorf("the header of frame %d took %d reads; want a few", n, reads)
		}
		picture := make([]byte, f.Bytes)
		if _, err := io.ReadFull(p.Stdout, picture[copy(picture, f.Prefix):]); err != nil {
			t.Fatal(err)
		}
		pts, sums = append(pts, f.PTS), append(sums, sha256.Sum256(picture))
	}
	if err := p.Wait(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	return pts, sums
}

// The timestamps are the file's, to its millisecond; the pixels are those of
// rawvideo; frames of all sizes, also such as NUT abbreviates (below 4 KiB,
// beginning with 0, 0, 1) and such as it writes a checksum for (above 128 KiB).
func TestFrameReader(t *testing.T) {
	for _, size := range []string{"2x2", "48x32", "64x48", "320x240", "640x480"} {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			vfr := "setpts='if(lt(N,10),N/30,if(lt(N,15),10/30+(N-10)/5,4.333+(N-15)/30))/TB'"
			path := makeClip(t, "vfr.mkv", "testsrc2=s="+size+":r=30:d=1,settb=1/1000,"+vfr, "-fps_mode", "passthrough", "-c:v", "ffv1", "-pix_fmt", "yuv420p")
			pts, sums := readFrames(t, File(path))
			if len(pts) != 30 {
				t.Fatalf("%d frames; want 30", len(pts))
			}
			for n, got := range pts {
				want := float64(n) / 30
				if n >= 15 {
					want = 4.333 + float64(n-15)/30
				} else if n >= 10 {
					want = 10./30 + float64(n-10)/5
				}
				if d := got.Seconds() - want; d < -0.001 || d > 0.001 {
					t.Errorf("frame %d has the timestamp %v; want %.3f s", n, got, want)
				}
			}
			c := FFmpeg(File(path), "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "pipe:1")
			c.Stdout = true
			raw, err := io.ReadAll(start(t, c).Stdout)
			if err != nil {
				t.Fatal(err)
			}
			bytes := len(raw) / len(sums)
			for n, sum := range sums {
				if sum != sha256.Sum256(raw[n*bytes:][:bytes]) {
					t.Errorf("frame %d is not the frame of rawvideo", n)
				}
			}
		})
	}
}

// nutHeaders is what ffmpeg 5.1 writes before the first frame: microseconds, and
// frame code 1 for frames that write all their flags.
const nutHeaders = "nut/multimedia container\x00NMzV\x1f_\x04\xadJ\x04\x01\x01\x81\xff\x7f\x01\x01\xbd\x84@\xc0\x00\x06\x00\x00\x00\x00\x00\x01\xa0\x00\x02\x01\x01(\x01\x00)\x00" +
	"!\x01\x01 \x02\x01\x81y\xc0\x00\x06\x00\x00\x00\x00\x00\x01\x06\x03\x00\x00\x01\x04\x00\x00\x01\xb6\x02\xff\xfa\x02\xff\xfb\x02\xff\xfc\x02\xff\xfd\x024\xb0\x09/" +
	"NS\x11@[\xf2\xf9\xdb\x1a\x00\x00\x04I420\x00\x0e\xbd\x84@\x00\x00\x00\x82@\x81p\x01\x01\x00}\xb4\xd4\x80" +
	"NK\xe4\xad\xee\xcaEi\x06\x00\x00\x00\x00\x00\x00"

// Fields that ffmpeg writes seldom: a beginning that is left out, a checksum, reserved fields,
// side data and metadata.
func TestFrameReaderReadsEveryField(t *testing.T) {
	coded := func(flags int, rest string) string {
		return "\x01" + string([]byte{byte(0x80 | flags>>7), byte(flags & 0x7f)}) + rest
	}
	in := bytes.NewReader([]byte(nutHeaders +
		coded(nutCodedPTS|nutSizeMSB|nutHeaderIdx, "\x81\x80\x05\x08\x02") + "1234" +
		coded(nutStreamID|nutCodedPTS|nutSizeMSB|nutMatchTime|nutReserved|nutChecksum, "\x00\x81\x80\x64\x03\x00\x02\x07\x81\x07****") + "123" +
		coded(nutSideData|nutCodedPTS|nutSizeMSB, "\x81\x80\x65\x16") + "\x01\x01Q\x04\x03bin\x02\xff\x01" + "\x02\x01a\x02\x01b\x01c\x07" + "12"))
	frames := NewFrameReader(in)
	for i, want := range []Frame{
		{Bytes: 8, PTS: 5 * time.Microsecond, Prefix: []byte{0, 0, 1, 0xb6}},
		{Bytes: 3, PTS: 100 * time.Microsecond},
		{Bytes: 2, PTS: 101 * time.Microsecond},
	} {
		got, err := frames.Next()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Fatalf("Next() of frame %d = %v (-want +got):\n%s", i, err, diff)
		}
		rest := make([]byte, got.Bytes-len(got.Prefix))
		if _, err := io.ReadFull(in, rest); err != nil || string(rest) != "1234"[:len(rest)] {
			t.Errorf("frame %d goes on with %q, %v; want its own bytes", i, rest, err)
		}
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next() at the end = %v; want io.EOF", err)
	}
}

func TestFrameReaderRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"":                                      io.EOF,
		"nut/multi":                             io.ErrUnexpectedEOF,
		"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420":  errNUT,
		nutMagic + "\x04\x01":                   errNUT, // a frame before the headers
		nutHeaders[:60]:                         io.ErrUnexpectedEOF,
		nutHeaders:                              io.EOF,
		nutHeaders + "\x00":                     errNUT, // a code that stands for nothing
		nutHeaders + "\x04\x83":                 io.ErrUnexpectedEOF,
		nutHeaders + "\x04\xff\xff\xff\xff\x7f": errNUT, // 32 GiB
	} {
		if f, err := NewFrameReader(bytes.NewReader([]byte(in))).Next(); !errors.Is(err, want) {
			t.Errorf("Next() of %q = %+v, %v; want %v", in, f, err, want)
		}
	}
}

// The encoder's remarks on a JPEG are not part of it.
func TestFrameReaderReadsJPEG(t *testing.T) {
	path := makeClip(t, "a.mkv", "testsrc2=s=320x240:r=10:d=0.5", "-c:v", "ffv1")
	c := FFmpeg(File(path), append([]string{"-c:v", "mjpeg", "-pix_fmt", "yuvj420p"}, Timestamped()...)...)
	c.Stdout = true
	p := start(t, c)
	frames := NewFrameReader(p.Stdout)
	for n := range 5 {
		f, err := frames.Next()
		if err != nil || f.PTS != time.Duration(n)*100*time.Millisecond {
			t.Fatalf("Next() of frame %d = %+v, %v; want it at %d ms", n, f, err, n*100)
		}
		picture := make([]byte, f.Bytes)
		if _, err := io.ReadFull(p.Stdout, picture[copy(picture, f.Prefix):]); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(picture, []byte("\xff\xd8\xff")) || !bytes.HasSuffix(picture, []byte("\xff\xd9")) {
			t.Errorf("frame %d begins with %x and ends with %x; want a whole JPEG", n, picture[:4], picture[len(picture)-2:])
		}
	}
}

func TestFrameReaderCopiesTimestamps(t *testing.T) {
	path := makeClip(t, "late.mkv", "testsrc2=s=64x48:r=10:d=0.3,setpts=PTS+3600/TB", "-c:v", "ffv1", "-copyts")
	pts, _ := readFrames(t, File(path).With("-copyts"))
	for n, got := range pts {
		if want := time.Hour + time.Duration(n)*100*time.Millisecond; got != want {
			t.Errorf("frame %d has the timestamp %v; want %v", n, got, want)
		}
	}
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte(nutMagic))
	f.Add([]byte(nutHeaders + "\x01i\x00\x87\x84\x00****" + "0123456789abcdef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		frames := NewFrameReader(r)
		for {
			frame, err := frames.Next()
			if err != nil {
				return
			}
			if frame.Bytes < len(frame.Prefix) {
				t.Fatalf("Next() = %+v; want no more prefix than picture", frame)
			}
			if _, err := r.Seek(int64(frame.Bytes-len(frame.Prefix)), io.SeekCurrent); err != nil {
				t.Fatal(err)
			}
		}
	})
}
