package ffmpeg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/pixel"
)

// makeClip runs ffmpeg to make a file of a synthetic source; see its manual, "lavfi".
func makeClip(t *testing.T, name, source string, args ...string) string {
	t.Helper()
	if _, err := Find("ffmpeg"); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), name)
	in := Input{args: []string{"-f", "lavfi", "-i", source}, shown: source}
	p, err := Start(t.Context(), FFmpeg(in, append(args, path)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbe(t *testing.T) {
	odd := "-x %d 'quoted' $HOME.mp4" // a name that is nothing but a name
	path := makeClip(t, "clip.mp4", "testsrc=s=64x48:r=30000/1001:d=2", "-pix_fmt", "yuv420p")
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), odd)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(path))
	got, err := Probe(t.Context(), File(odd))
	if err != nil {
		t.Fatal(err)
	}
	want := Video{Codec: "h264", Size: pixel.Size{Width: 64, Height: 48}, Hz: 30000. / 1001, Frames: 60, Duration: 2002 * time.Millisecond, Rewinds: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Probe(%q) (-want +got):\n%s", odd, diff)
	}
}

func TestProbeFails(t *testing.T) {
	if _, err := Find("ffprobe"); err != nil {
		t.Skip(err)
	}
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte("no video\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	playlist := filepath.Join(t.TempDir(), "far.m3u8")
	if err := os.WriteFile(playlist, []byte("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sound := makeClip(t, "beep.wav", "sine=d=0.1")
	cover := makeClip(t, "beep.mp3", "sine=d=0.1[out0];color=s=64x64:d=0.04[out1]", "-c:v", "mjpeg", "-disposition:v", "attached_pic")
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none.mp4"): "No such file",
		text:                                   "ffprobe: exit status 1; its last words: ",
		playlist:                               "ffprobe: exit status 1; its last words: ", // leads out of the file
		sound:                                  "no video in it",
		cover:                                  "no video in it (the cover picture of a sound file is none)",
	} {
		if _, err := Probe(t.Context(), File(path)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Probe(%s) = %v; want %q", path, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := Probe(ctx, File(text)); err == nil {
		t.Error("Probe() after its deadline = nil; want an error")
	}
}

func TestParseProbe(t *testing.T) {
	for _, test := range []struct {
		answer string
		want   Video
	}{
		{`{"streams":[{"width":640,"height":480,"avg_frame_rate":"0/0","r_frame_rate":"25/1"}],"format":{"duration":"1.5"}}`,
			Video{Size: pixel.Size{Width: 640, Height: 480}, Hz: 25, Duration: 1500 * time.Millisecond}},
		{`{"streams":[{"width":640,"height":480,"avg_frame_rate":"0/0","r_frame_rate":"90000/1","side_data_list":[{"rotation":-90}]}]}`,
			Video{Size: pixel.Size{Width: 480, Height: 640}}},
		{`{"streams":[{"width":640,"height":480,"nb_frames":"N/A","duration":"nan","side_data_list":[{},{"rotation":180}]}]}`,
			Video{Size: pixel.Size{Width: 640, Height: 480}}},
		{`{"streams":[{"width":720,"height":576,"sample_aspect_ratio":"16:15"}],"packets":[{"flags":"K_"},{"flags":"__"}],"format":{"format_name":"mpegts"}}`,
			Video{Size: pixel.Size{Width: 768, Height: 576}}},
		{`{"streams":[{"width":720,"height":480,"sample_aspect_ratio":"8:9","side_data_list":[{"rotation":90}]}],"format":{"format_name":"mov,mp4,m4a,3gp,3g2,mj2"}}`,
			Video{Size: pixel.Size{Width: 480, Height: 640}, Rewinds: true}},
		{`{"streams":[{"width":720,"height":576,"sample_aspect_ratio":"118:81"}]}`, // 1048.9
			Video{Size: pixel.Size{Width: 1048, Height: 576}}},
		{`{"streams":[{"width":65,"height":48,"sample_aspect_ratio":"1:1"}]}`, Video{Size: pixel.Size{Width: 65, Height: 48}}},
		{`{"streams":[{"width":65,"height":48,"sample_aspect_ratio":"0:1"}]}`, Video{Size: pixel.Size{Width: 65, Height: 48}}},
		{`{"streams":[{"width":65,"height":48,"sample_aspect_ratio":"1000:1"}]}`, Video{Size: pixel.Size{Width: 65, Height: 48}}},
		{`{"streams":[{"width":640,"height":480}],"packets":[{"flags":"KD"},{"flags":"_D"}],"format":{"format_name":"mov,mp4,m4a,3gp,3g2,mj2"}}`,
			Video{Size: pixel.Size{Width: 640, Height: 480}}},
		{`{"streams":[{"width":640,"height":480,"avg_frame_rate":"10/1","nb_frames":"1"}],"format":{"format_name":"gif"}}`,
			Video{Size: pixel.Size{Width: 640, Height: 480}, Frames: 1, Still: true}},
		{`{"streams":[{"width":640,"height":480,"avg_frame_rate":"25/1"}],"packets":[{"flags":"K_"}],"format":{"format_name":"png_pipe"}}`,
			Video{Size: pixel.Size{Width: 640, Height: 480}, Still: true}},
	} {
		got, err := parseProbe([]byte(test.answer))
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("parseProbe(%s) = %v (-want +got):\n%s", test.answer, err, diff)
		}
	}
	for _, answer := range []string{``, `{}`, `{"streams":[]}`, `{"streams":[{"width":-1,"height":2}]}`, `[]`} {
		if v, err := parseProbe([]byte(answer)); err == nil {
			t.Errorf("parseProbe(%s) = %+v; want an error", answer, v)
		}
	}
}

func FuzzParseProbe(f *testing.F) {
	f.Add([]byte(`{"streams":[{"width":640,"height":480,"avg_frame_rate":"15/1","nb_frames":"300","side_data_list":[{"rotation":90}]}],"format":{"duration":"20"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		v, err := parseProbe(answer)
		if err == nil && (v.Size.Width <= 0 || v.Size.Height <= 0 || !(v.Hz >= 0 && v.Hz <= 1e4) || v.Frames < 0 || v.Duration < 0) {
			t.Errorf("parseProbe(%q) = %+v; want numbers that make sense", answer, v)
		}
	})
}

func TestRTSPShowsNoCredentials(t *testing.T) {
	for _, address := range []string{
		"rtsp://me:secret@camera:554/live/1",
		"rtsps://me:se%63ret@camera:554/live/1",
		"rtsp://camera:554/live/1?user=me&password=secret",
	} {
		in, err := RTSP(address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		words := tail{hide: in.hide}
		query := strings.Contains(address, "?")
		for _, line := range []string{address + ": refused", strings.TrimPrefix(address, "rtsp://"), map[bool]string{false: "401 for secret"}[query]} {
			if _, err := words.Write([]byte(line + "\n")); err != nil {
				t.Fatal(err)
			}
		}
		shown := in.String() + strings.Join(words.last(), "\n")
		if strings.Contains(shown, "secret") || strings.Contains(shown, "se%63ret") || !strings.Contains(shown, "camera:554/live/1: refused") {
			t.Errorf("RTSP(%q) shows %q; want the host and path, no password", address, shown)
		}
		if in.args[len(in.args)-1] != address {
			t.Errorf("RTSP(%q) opens %q", address, in.args[len(in.args)-1])
		}
	}
	for _, address := range []string{"", "rtsp://", "rtsp:///x", "http://camera/secret", "camera", "rtsp://me:sec ret%zz@camera/"} {
		if _, err := RTSP(address, time.Second); err == nil || strings.Contains(err.Error(), "sec") {
			t.Errorf("RTSP(%q) = %v; want an error that does not show the address", address, err)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	var words tail
	for range 1000 {
		if n, err := words.Write([]byte(strings.Repeat("x", 1000))); n != 1000 || err != nil {
			t.Fatalf("Write() = %d, %v; want all of it", n, err)
		}
	}
	if got := words.last(); len(got) != 1 || len(got[0]) > maxLine+3 || cap(words.part) > 2*maxPart {
		t.Errorf("kept %d lines, %d bytes; want one short line", len(got), cap(words.part))
	}
}

// Only who ended by himself has said something of the file.
func TestCountFramesTellsBrokenFromUnknown(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for script, broken := range map[string]bool{"exit 1": true, "echo 'no moov' >&2": true, "kill -SEGV $$": true, "echo 3 words": false,
		"kill -TERM $$": false, "kill -KILL $$": false} {
		if err := os.WriteFile(bin+"/ffprobe", []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if n, err := CountFrames(t.Context(), File("x.mp4")); err == nil || errors.Is(err, ErrBroken) != broken {
			t.Errorf("CountFrames() by %q = %d, %v; broken: want %v", script, n, err, broken)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := CountFrames(ctx, File("x.mp4")); err == nil || errors.Is(err, ErrBroken) {
		t.Errorf("CountFrames() that was told to stop = %d, %v; want an error that says nothing of the file", n, err)
	}
}
