package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/spool"
)

// cutFilm is a filer with a segment in it that ffmpeg did not close.
func cutFilm(t *testing.T) (a *filer, r *recording, path string, pictures int) {
	t.Helper()
	needFFmpeg(t)
	sp, err := spool.Open(t.TempDir(), spool.Work, spool.Born)
	if err != nil {
		t.Fatal(err)
	}
	work, err := os.OpenRoot(sp.Path(spool.Work, ""))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = newRecording(work, recordingName("clips", 1), head{Number: 1}); err != nil {
		t.Fatal(err)
	}
	path = sp.Path(spool.Work, r.name) + "/" + segmentName(0)
	if text, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3", "-pix_fmt", "yuv420p",
		"-c:v", "libx264", "-tune", "zerolatency", "-g", "5", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-f", "mp4", path).CombinedOutput(); err != nil {
		t.Fatalf("make segment: %v: %s", err, text)
	}
	return &filer{log: slog.New(slog.DiscardHandler), spool: sp, work: work, step: func(string) {}}, r, path, 30
}

// A writer that is told to stop while it looks at a segment leaves that as it is.
func TestStoppedWhileItLooksAtASegment(t *testing.T) {
	a, r, path, _ := cutFilm(t)
	before, err := readWhole(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if err := a.decide(ctx, r, ending{cut: "by a test"}); !errors.Is(err, context.Canceled) {
			t.Errorf("decide() = %v; want that it was told to stop", err)
		}
	}
	if after, err := readWhole(path); err != nil || after != before {
		t.Errorf("the segment has %d whole bytes, %v; had %d", after, err, before)
	}
}

func readWhole(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	m, err := readFilm(f, st.Size())
	return m.whole, err
}

// No picture is given up because ffprobe was killed; it is where it says so itself.
func TestAKilledProbeSaysNothing(t *testing.T) {
	a, r, _, pictures := cutFilm(t)
	if why, err := a.plays(t.Context(), r, 0, pictures); why != nil || err != nil {
		t.Errorf("plays() = %v, %v; want that it does", why, err)
	}
	if why, err := a.plays(t.Context(), r, 0, pictures+1); !errors.Is(why, ffmpeg.ErrBroken) || err != nil {
		t.Errorf("plays() of a picture more = %v, %v; want that it is broken", why, err)
	}
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(bin+"/ffprobe", []byte("#!/bin/sh\nkill -KILL $$\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if why, err := a.plays(t.Context(), r, 0, pictures); why != nil || err != nil {
		t.Errorf("plays() by a probe that is killed = %v, %v; want neither", why, err)
	}
}
