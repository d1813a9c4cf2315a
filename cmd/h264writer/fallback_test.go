package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// One early end is nobody's fault; two in a row change the encoder for an hour,
// after which the better one has to show that it works.
func TestEncoderFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		e := newEncoders([]string{"h264_v4l2m2m", x264})
		e.works = []bool{true, true}
		broken := errors.New("no device")
		e.try = func(context.Context, string) error { return broken }
		fail := func(want string) {
			t.Helper()
			e.failed(time.Now())
			if e.current() != want {
				t.Errorf("after an early end the encoder is %s; want %s", e.current(), want)
			}
		}
		pass := func(d time.Duration, want bool) {
			t.Helper()
			for range 60 {
				time.Sleep(d / 60)
				e.look(t.Context(), time.Now(), log)
				synctest.Wait()
			}
			if e.better() != want {
				t.Errorf("after %s more a better encoder is there: %v; want %v", d, !want, want)
			}
		}
		fail("h264_v4l2m2m")
		e.succeeded() // a fragment in between
		fail("h264_v4l2m2m")
		fail(x264)
		fail(x264) // there is no other
		fail(x264)
		pass(59*time.Minute, false)
		pass(5*time.Minute, false) // tried, and broken still
		broken = nil
		pass(50*time.Minute, false)
		pass(10*time.Minute, true)
		if from, to, changed := e.improve(); !changed || from != x264 || to != "h264_v4l2m2m" || e.current() != "h264_v4l2m2m" || e.better() {
			t.Errorf("improve = %s, %s, %v; want from %s to h264_v4l2m2m", from, to, changed, x264)
		}
		fail("h264_v4l2m2m")
		fail(x264)
		pass(2*time.Hour, true)
	})
}

// However often ffmpeg ends early, recording is tried again within five seconds.
func TestPauseHasALimit(t *testing.T) {
	r := &recorder{retry: newRetry()}
	for n := range 50 {
		r.pause(0)
		if d := time.Until(r.after); d > 5*time.Second {
			t.Fatalf("pause %d lasts %s; want at most 5 s", n+1, d)
		}
	}
}

// hardware puts an ffmpeg into the box that has a hardware encoder: libx264, as
// long as the file "broken" is not there.
func hardware(t *testing.T, b *boxtest.Box) (env []string) {
	t.Helper()
	needFFmpeg(t)
	real, err := exec.LookPath("ffmpeg")
	if err == nil {
		err = os.Mkdir(b.Dir+"/bin", 0o700)
	}
	if err == nil {
		err = os.WriteFile(b.Dir+"/bin/ffmpeg", fmt.Appendf(nil, `#!/bin/sh
case "$*" in *h264_v4l2m2m*matroska*|*matroska*h264_v4l2m2m*)
	echo once >> %[1]s/tries
	[ $(wc -l < %[1]s/tries) -le $(cat %[1]s/broken) ] && { echo 'the encoder is busy' >&2; exit 1; };;
esac
n=$#
for word; do
	[ "$word" = h264_v4l2m2m ] && word=libx264
	set -- "$@" "$word"
done
shift $n
exec %[2]s "$@"
`, b.Dir, real), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + b.Dir + "/bin:" + os.Getenv("PATH")}
}

// A hardware encoder that fails once is used again; one that fails twice gives
// way to libx264.
func TestAHardwareEncoderThatFails(t *testing.T) {
	for failures, want := range map[int]string{1: "by h264_v4l2m2m into", 2: "by libx264 into"} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			t.Parallel()
			b := boxtest.New(t, strings.Replace(fleet(`segment = "1s"`), `"libx264"`, `"auto"`, 1))
			env := hardware(t, b)
			if err := os.WriteFile(b.Dir+"/broken", fmt.Appendln(nil, failures), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newCamera(t, b, pixel.YUV420, small(), killHz)
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
			p := b.StartEnv(env, "h264writer", "--topology", b.Topology, "--name", "clips")
			c.ready()
			stop := c.shoot()
			s := states.State("segments, and no trouble", func(s msg.State) bool { return s.Counters["segments"] > 0 && s.Trouble == "" })
			stop()
			if !strings.Contains(s.Status, want) || s.Counters["restarts"] != uint64(failures) {
				t.Errorf("status %q with %d restarts; want %q with %d", s.Status, s.Counters["restarts"], want, failures)
			}
			p.Stop()
		})
	}
}

// On a machine without a hardware encoder that is said once, calmly.
func TestASoftwareEncoderIsNoTrouble(t *testing.T) {
	t.Parallel()
	needFFmpeg(t)
	b := boxtest.New(t, strings.Replace(fleet(`segment = "1s"`), `"libx264"`, `"auto"`, 1))
	c := newCamera(t, b, pixel.YUV420, small(), 25)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "clips")
	p := b.Start("h264writer", "clips")
	c.ready()
	c.film(c.bus.Clock().Now(), 30)
	s := states.State("all frames", fed(30))
	p.Stop()
	if s.Trouble != "" || !strings.Contains(s.Status, "by libx264") {
		t.Skipf("this machine has a hardware encoder: %s", s.Status)
	}
	said := 0
	for line := range strings.Lines(p.Log()) {
		if strings.Contains(line, "encoder") && !strings.Contains(line, `"level":"DEBUG"`) {
			said++
			if !strings.Contains(line, `"level":"INFO"`) || strings.Contains(line, "err") {
				t.Errorf("it says %s; want one line of level INFO without an error", line)
			}
		}
	}
	if said != 1 || strings.Contains(p.Log(), "WARN") {
		t.Errorf("it speaks of the encoder %d times, and says:\n%s\nwant one calm line", said, p.Log())
	}
}
