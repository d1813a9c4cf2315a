package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// What is written is what other readers of Matroska see in it.
func TestMatroska(t *testing.T) {
	needFFmpeg(t)
	head, err := streamHead(msg.Geometry{Format: "yuv420", Width: 16, Height: 16, Hz: 30})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	file.Write(head)
	for _, at := range []time.Duration{0, 33 * time.Millisecond, 100*time.Hour + 7*time.Microsecond} {
		file.Write(frameHead(nil, at, 384))
		file.Write(make([]byte, 384))
	}
	path := filepath.Join(t.TempDir(), "raw.mkv")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ffprobe", "-v", "warning", "-of", "csv=p=0", "-show_entries", "stream=codec_name,width,height,pix_fmt,r_frame_rate:packet=pts_time,size", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v: %s", err, out)
	}
	want := "0.000000,384\n0.033000,384\n360000.000007,384\nrawvideo,16,16,yuv420p,30/1\n"
	if diff := cmp.Diff(want, strings.ReplaceAll(string(out), ",\n", "\n")); diff != "" {
		t.Errorf("ffprobe sees (-want +got):\n%s", diff)
	}
	if _, err := streamHead(msg.Geometry{Format: "h265"}); err == nil {
		t.Error("streamHead of h265 = nil; want an error")
	}
}

// video makes a fragmented MP4 as h264writer has it made: 20 pictures, a
// fragment every five.
func video(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "v.mp4")
	text, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=0.8", "-c:v", "libx264", "-preset", "ultrafast",
		"-tune", "zerolatency", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "200000", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, text)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

// Wherever a file is cut, the whole fragments are found, and they play.
func TestReadFilmCutAnywhere(t *testing.T) {
	needFFmpeg(t)
	whole := video(t)
	all, err := readFilm(bytes.NewReader(whole), int64(len(whole)))
	if err != nil || len(all.shown) != 20 || all.shown[19] != 760*time.Millisecond {
		t.Fatalf("readFilm = %v, %v; want 20 pictures, the last at 760ms", all.shown, err)
	}
	dir := t.TempDir()
	played := map[int64]bool{}
	for cut := range whole {
		m, err := readFilm(bytes.NewReader(whole[:cut]), int64(cut))
		if err != nil || m.whole > int64(cut) || !slices.Equal(m.shown, all.shown[:len(m.shown)]) {
			t.Fatalf("readFilm of %d bytes = %+v, %v; want the first pictures", cut, m, err)
		}
		if len(m.shown)%5 != 0 {
			t.Fatalf("readFilm of %d bytes has %d pictures; want whole fragments of 5", cut, len(m.shown))
		}
		if m.whole == 0 || played[m.whole] {
			continue
		}
		played[m.whole] = true
		path := filepath.Join(dir, fmt.Sprint(cut, ".mp4"))
		if err := os.WriteFile(path, whole[:m.whole], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plays(t.Context(), path, len(m.shown)); err != nil {
			t.Errorf("cut behind fragment %d: %v", len(m.shown)/5, err)
		}
	}
	if len(played) != 4 {
		t.Errorf("%d fragments were found; want 4", len(played))
	}
	if err := plays(t.Context(), filepath.Join(dir, "absent.mp4"), 1); err == nil {
		t.Error("plays of a file that is not there = nil; want an error")
	}
}

func FuzzReadFilm(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08ftyp\x00\x00\x00\x01mdat\x00\x00\x00\x00\x00\x00\x00\x10"))
	f.Add([]byte("\x00\x00\x00\x20moof\x00\x00\x00\x18traf\x00\x00\x00\x10tfhd\x00\x00\x00\x00\x00\x00\x00\x01"))
	if _, err := exec.LookPath("ffmpeg"); err == nil {
		f.Add(video(f))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := readFilm(bytes.NewReader(text), int64(len(text)))
		if err == nil && m.whole > int64(len(text)) {
			t.Errorf("readFilm of %d bytes: whole up to %d", len(text), m.whole)
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(journalText))
	f.Add(bytes.Repeat([]byte{0}, 5000))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := &recording{}
		whole, err := replay(bytes.NewReader(text), r.apply)
		if whole > int64(len(text)) || err == nil && bytes.IndexByte(text[whole:], '\n') >= 0 && bytes.IndexByte(text[whole:], '\n') < len(text[whole:])-1 {
			t.Errorf("replay of %d bytes = %d, %v; want what is behind a bad line reported", len(text), whole, err)
		}
	})
}

const journalText = `{"head":{"number":4,"source":"frame/porch/video","epoch":"0000000000000001","boot_id":"b","first":8,"segment_ns":1000000000,"index":3,"sent":9}}
{"fed":{"seq":9,"time":"2026-03-01T12:00:00.000000000Z","boot_ns":5,"synced":true,"at_ns":3000000000}}
{"fed":{"seq":10,"time":"2026-03-01T12:00:00.000000000Z","boot_ns":6,"synced":true,"at_ns":3000001000}}
{"unfed":10}
{"fed":{"seq":11,"time":"2026-03-01T12:00:00.000000000Z","boot_ns":7,"synced":true,"at_ns":4000002000}}
{"closed":{"index":3,"start_ns":3000000000}}
{"decision":{"index":3,"id":"x","before":{"epoch":"0000000000000001","next":8},"after":{"epoch":"0000000000000001","next":10}}}
`

// A journal is read up to where it is torn, and goes on from there.
func TestReplay(t *testing.T) {
	for _, tail := range []string{"", `{"fed":{"seq":12,"ti`, "\x00\x00\x00", "{\"fed\":{\"seq\":12,\x00\n"} {
		dir, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.WriteFile(journalName, []byte(journalText+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		for n := range 2 { // by two runs, the first of which adds a line
			r := &recording{closed: map[int]time.Duration{}}
			j, damage, err := openJournal(dir, r.apply)
			if err != nil || damage != nil {
				t.Fatalf("openJournal with %q behind = %v, %v; want neither", tail, damage, err)
			}
			if len(r.frames) != 1+n || r.frames[0].Seq != 11 || r.head.Index != 4 || r.head.Position.Next != 10 || r.pending == nil || r.sent != msg.Seq(12+n) {
				t.Errorf("replay with %q behind, run %d = frames %+v up to %d, head %+v; want frame 11, segment 4, expecting 10", tail, n, r.frames, r.sent, r.head)
			}
			if err := errors.Join(j.add(line{Frame: &sentFrame{Seq: 12, At: 4e9}}), j.close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// A journal that cannot be read to its end says so: a fault of the disk, garbage
// with lines behind it, and what is longer than any line. What came before counts.
func TestReplayOfADamagedJournal(t *testing.T) {
	for _, tt := range []struct {
		name string
		text io.Reader
		want string
	}{
		{"a disk that fails", io.MultiReader(strings.NewReader(journalText), iotest.ErrReader(syscall.EIO)), "input/output error"},
		{"garbage inside", strings.NewReader(journalText + "{\"fed\":\n" + `{"unfed":11}` + "\n"), "the line at byte"},
		{"zeros inside", strings.NewReader(journalText + strings.Repeat("\x00", 5000) + "\n" + `{"unfed":11}` + "\n"), "the line at byte"},
		{"no end of a line", strings.NewReader(journalText + strings.Repeat(" ", maxLine+1) + "\n"), "a line of more than"},
	} {
		r := &recording{}
		whole, err := replay(tt.text, r.apply)
		if err == nil || !strings.Contains(err.Error(), tt.want) || whole != int64(len(journalText)) || len(r.frames) != 1 {
			t.Errorf("%s: replay = %d bytes, %d frames, %v; want %d bytes, 1 frame and %q", tt.name, whole, len(r.frames), err, len(journalText), tt.want)
		}
	}
}

// Frames are known by their times, also where an encoder left one out.
func TestMatch(t *testing.T) {
	ms := func(list ...int) (times []time.Duration) {
		for _, n := range list {
			times = append(times, time.Duration(n)*time.Millisecond)
		}
		return times
	}
	for _, tt := range []struct {
		name    string
		sent    []time.Duration
		shown   []time.Duration
		index   int
		closed  time.Duration // when the segment begins, by ffmpeg; negative is not known
		in      []msg.Seq
		strange uint64
	}{
		{"all", ms(0, 40, 80), ms(0, 40, 80), 0, 0, []msg.Seq{0, 1, 2}, 0},
		{"the next segment's stay", ms(0, 40, 80, 120), ms(0, 40), 0, -1, []msg.Seq{0, 1}, 0},
		{"one left out", ms(0, 40, 80, 120), ms(0, 80), 0, 0, []msg.Seq{0, 2}, 0},
		{"the first left out", ms(0, 40, 80), ms(0, 40), 0, 40 * time.Millisecond, []msg.Seq{1, 2}, 0},
		{"one that is nobody's", ms(0, 40), ms(0, 20, 40), 0, 0, []msg.Seq{0, 1}, 1},
		{"rounded", ms(0, 40), []time.Duration{0, 39_988_888}, 0, 0, []msg.Seq{0, 1}, 0},
		{"none", nil, ms(0, 40), 0, -1, nil, 2},
		// The end of the segment before is lost, so that its frames are still here.
		{"a segment behind one that was cut", ms(900, 940, 980, 1020, 1060), ms(0, 40), 1, -1, []msg.Seq{3, 4}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &recording{closed: map[int]time.Duration{}, head: head{Segment: time.Second}}
			for i, at := range tt.sent {
				r.frames = append(r.frames, sentFrame{Seq: msg.Seq(i), At: at})
			}
			if tt.closed >= 0 {
				r.closed[tt.index] = tt.closed
			}
			in, strange := match(r.frames, tt.shown, r.begins(tt.index))
			var got []msg.Seq
			for _, s := range in {
				got = append(got, s.Seq)
			}
			if !slices.Equal(got, tt.in) || strange != tt.strange {
				t.Errorf("match = %v, %d strange; want %v, %d", got, strange, tt.in, tt.strange)
			}
		})
	}
}

func TestParseListed(t *testing.T) {
	if i, at, err := parseListed("000012.mp4,48.000011,51.966667"); i != 12 || at != 48000011*time.Microsecond || err != nil {
		t.Errorf("parseListed = %d, %v, %v; want 12 and 48.000011s", i, at, err)
	}
	for _, bad := range []string{"", "000012.mp4", "000012.mp4,1", "../12.mp4,0,1", "00001x.mp4,0,1", "000012.mp4,NaN,1", "000012.mp4,soon,1"} {
		if _, _, err := parseListed(bad); err == nil {
			t.Errorf("parseListed(%q) = nil; want an error", bad)
		}
	}
}

// No argument but those that are meant gets to ffmpeg.
func TestEncodeArguments(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Segment, cfg.Extra = 25e9, []string{"profile=high", "maxrate=2M"}
	got := strings.Join(cfg.encode(x264, msg.Geometry{Format: string(pixel.RGB24), Width: 63, Height: 48, Hz: 30}, "/x/%06d.mp4"), " ")
	want := "-map 0:v:0 -fps_mode passthrough -enc_time_base 1:90000 -c:v libx264 -preset superfast -tune zerolatency -threads 2 -crf 23 " +
		"-profile:v high -maxrate:v 2M -vf crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0,scale=out_range=tv:out_color_matrix=bt601,format=yuv420p," +
		"setparams=range=tv:colorspace=smpte170m:color_primaries=bt709:color_trc=bt709 " +
		"-color_range tv -colorspace smpte170m -color_primaries bt709 -color_trc bt709 -g 100000 " +
		"-force_key_frames expr:if(isnan(prev_forced_t),1,gt(floor(t*3/25+1e-5),floor(prev_forced_t*3/25+1e-5))) " +
		"-f segment -segment_format mp4 -segment_time 25 -segment_time_delta 0.0005 -reset_timestamps 1 -segment_list pipe:1 -segment_list_type csv " +
		"-segment_format_options movflags=+frag_keyframe+empty_moov+default_base_moof+write_colr:frag_duration=466666:flush_packets=1 file:/x/%06d.mp4"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("encode (-want +got):\n%s", diff)
	}
	hardware := strings.Join(cfg.encode("h264_v4l2m2m", msg.Geometry{Width: 640, Height: 480, Hz: 10}, "/x/%06d.mp4"), " ")
	if strings.Contains(hardware, "preset") || strings.Contains(hardware, "crf") || !strings.Contains(hardware, "-b:v 307200 ") {
		t.Errorf("encode for h264_v4l2m2m = %s; want a bitrate of 307200 and nothing of libx264's", hardware)
	}
}
