package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// The encoders, by ffmpeg's names.
const (
	auto = "auto"
	x264 = "libx264"
)

func encoderNames() []string { return []string{x264, "h264_v4l2m2m", "h264_nvenc", "libopenh264"} }

// candidates are the encoders that a setting may mean, the best first.
func candidates(setting string) []string {
	if setting == auto {
		return []string{"h264_v4l2m2m", x264}
	}
	return []string{setting}
}

// trialPatience is how long an encoder may take for its first picture: while a box
// starts, everything is slow.
const trialPatience = 30 * time.Second

// findEncoders are the candidates, as far as they work on this machine.
func findEncoders(ctx context.Context, w *worker.Worker, setting string) (*encoders, error) {
	e := newEncoders(candidates(setting))
	var errs []error
	for i, name := range e.names {
		if err := tryAlive(ctx, name, w.Progress); err != nil {
			errs = append(errs, fmt.Errorf("encoder %s: %w", name, err))
			continue
		}
		e.works[i] = true
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if !slices.Contains(e.works, true) {
		return nil, worker.NoDevice(errors.Join(errs...))
	}
	e.use, e.since = slices.Index(e.works, true), time.Now()
	if len(errs) > 0 {
		w.Log.Debug("encoders that do not work here", "err", errors.Join(errs...))
	}
	if e.use > 0 {
		w.Log.Info("recording in software: this machine has no hardware encoder that works", "encoder", e.current())
	}
	return e, nil
}

// tryAlive is try that calls alive all the while.
func tryAlive(ctx context.Context, encoder string, alive func()) error {
	tried := make(chan error, 1)
	go func() { tried <- try(ctx, encoder) }()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-tried:
			return err
		case <-tick.C:
			alive()
		}
	}
}

// try encodes one grey picture.
func try(ctx context.Context, encoder string) error {
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	c := ffmpeg.FFmpeg(ffmpeg.Grey(), "-frames:v", "1", "-pix_fmt", "yuv420p", "-c:v", encoder, "-f", "null", "-")
	p, err := ffmpeg.Start(ctx, c)
	if err != nil {
		return err
	}
	return p.Wait(trialPatience)
}

// option is an encoder's option that a user may set, and what it may be.
type option struct {
	name string
	want *regexp.Regexp
}

func options() []option {
	rate := regexp.MustCompile(`^[1-9][0-9]{0,8}[kM]?$`)
	return []option{
		{"profile", regexp.MustCompile(`^(baseline|main|high)$`)},
		{"level", regexp.MustCompile(`^[1-6](\.[0-3])?$`)},
		{"maxrate", rate}, {"bufsize", rate},
		{"refs", regexp.MustCompile(`^([1-9]|1[0-6])$`)},
		{"qmin", regexp.MustCompile(`^([0-9]|[1-4][0-9]|5[01])$`)}, {"qmax", regexp.MustCompile(`^([0-9]|[1-4][0-9]|5[01])$`)},
	}
}

// extraArgs are the arguments for a list of NAME=VALUE. It fails on a name that
// is not allowed, and on a value that is none for it.
func extraArgs(extra []string) (args []string, err error) {
	var names []string
	for _, o := range options() {
		names = append(names, o.name)
	}
	for _, word := range extra {
		name, value, _ := strings.Cut(word, "=")
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("%q is not allowed: want NAME=VALUE%s", word, nearest.Hint(name, names))
		}
		if o := options()[i]; !o.want.MatchString(value) {
			return nil, fmt.Errorf("%q: want a value for %s that matches %s", word, name, o.want)
		}
		args = append(args, "-"+name+":v", value)
	}
	return args, nil
}

// rateArgs say how good the picture is to be.
func (c Config) rateArgs(encoder string, g msg.Geometry) []string {
	switch {
	case c.Bitrate > 0:
		return []string{"-b:v", strconv.Itoa(int(c.Bitrate))}
	case encoder == x264:
		return []string{"-crf", strconv.Itoa(c.CRF)}
	}
	hz := g.Hz
	if hz <= 0 {
		hz = 30
	}
	return []string{"-b:v", strconv.Itoa(int(0.1 * hz * float64(g.Width*g.Height)))} // a tenth of a bit a pixel
}

// timescale is how finely a video tells time, in ticks a second: what broadcast
// and players are used to (ISO/IEC 13818-1, 2.4.2.1).
const timescale = 90000

// encode are ffmpeg's arguments that turn the pictures on its standard input
// into segments named by pattern.
//
// Nothing is held back on the way: a decoder of one thread, pictures passed
// through with their times, and an encoder without lookahead and B pictures
// (tune zerolatency), so that what is in a file is all but the last fragment of
// what was sent.
func (c Config) encode(encoder string, g msg.Geometry, pattern string) []string {
	args := []string{"-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "1:" + strconv.Itoa(timescale), "-c:v", encoder}
	if encoder == x264 {
		args = append(args, "-preset", c.Preset, "-tune", "zerolatency", "-threads", strconv.Itoa(c.Threads))
	}
	args = append(args, c.rateArgs(encoder, g)...)
	extra, err := extraArgs(c.Extra)
	if err != nil {
		panic("h264writer: extra arguments passed Validate: " + err.Error())
	}
	args = append(args, extra...)
	args = append(args, colourArgs(encoder, g)...)
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	return append(args, "-g", "100000", "-force_key_frames", keyFrames(c.Segment.D()),
		"-f", "segment", "-segment_format", "mp4", "-segment_time", seconds(c.Segment.D()), "-segment_time_delta", seconds(borderSlack),
		"-reset_timestamps", "1", "-segment_list", "pipe:1", "-segment_list_type", "csv", "-segment_format_options",
		fmt.Sprintf("movflags=+frag_keyframe+empty_moov+default_base_moof+write_colr:frag_duration=%d:flush_packets=1", c.fragment(g.Hz).Microseconds()), "file:"+pattern)
}

// fragment is how long ffmpeg is to make fragments, so that a crash costs no
// more than Fragment and one frame: behind the frames of the open fragment, one
// may be in the encoder, and one in the pipe.
func (c Config) fragment(hz float64) time.Duration {
	if hz <= 0 {
		return c.Fragment.D()
	}
	return max(c.Fragment.D()-time.Duration(float64(time.Second)/hz), c.Fragment.D()/2)
}

// borderSlack is how much before a border a picture may come that begins the
// next segment: the segment muxer must never see a key frame at a border as one
// before it.
const borderSlack = 500 * time.Microsecond

// keyFrameSlack is how much before a border a picture may come that is the first
// of the next segment, by keyFrames.
func keyFrameSlack(segment time.Duration) time.Duration {
	return time.Duration(1e-5 * float64(segment) / keyFrameParts(segment))
}

// keyFrameParts is how many key frames a segment has.
func keyFrameParts(segment time.Duration) float64 { return math.Ceil(segment.Seconds() / 10) }

// keyFrames is the expression that asks for a key frame at the first picture of
// each span of time: a segment, or where that is longer than ten seconds, an
// equal part of it, for players that seek. The borders are multiples of the
// span and not counted from the last key frame, so that the segment muxer, which
// also counts from zero, cuts where they are.
func keyFrames(segment time.Duration) string {
	parts := keyFrameParts(segment)
	cell := func(t string) string {
		return fmt.Sprintf("floor(%s*%g/%g+1e-5)", t, parts, segment.Seconds())
	}
	return fmt.Sprintf("expr:if(isnan(prev_forced_t),1,gt(%s,%s))", cell("t"), cell("prev_forced_t"))
}
