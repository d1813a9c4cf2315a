package ffmpeg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/pixel"
)

// Video is what ffprobe says of an input's first video stream.
type Video struct {
	Codec    string        // as ffmpeg names it: h264
	Size     pixel.Size    // of decoded pictures, turned upright
	Hz       float64       // pictures a second on average; 0 is not known
	Steady   bool          // they are evenly spaced, as far as the container tells
	Frames   int           // 0 is not known: the container does not say
	Duration time.Duration // 0 is not known
	Colour   pixel.Colour  // of decoded YCbCr, as far as the input says
}

// maxAnswer is far more than ffprobe says of one stream.
const maxAnswer = 1 << 20

// Probe asks ffprobe what an input is, without decoding all of it. It fails
// when the input cannot be read, has no video, and when ctx ends first.
func Probe(ctx context.Context, in Input) (Video, error) {
	argv := append([]string{"ffprobe", "-hide_banner", "-loglevel", "error", "-of", "json", "-select_streams", "v:0", "-show_entries",
		"stream=codec_name,width,height,pix_fmt,color_range,color_space,avg_frame_rate,r_frame_rate,nb_frames,duration:stream_side_data=rotation:format=duration"}, in.args...)
	p, err := Start(ctx, Command{Argv: argv, Stdout: true, Hide: in.hide})
	if err != nil {
		return Video{}, fmt.Errorf("probe %s: %w", in, err)
	}
	answer, err := io.ReadAll(io.LimitReader(p.Stdout, maxAnswer))
	exit := p.Wait(defaultGrace)
	if ctx.Err() != nil {
		return Video{}, fmt.Errorf("probe %s: no answer: %w", in, ctx.Err())
	}
	if err := errors.Join(err, exit); err != nil {
		return Video{}, fmt.Errorf("probe %s: %w", in, err)
	}
	v, err := parseProbe(answer)
	if err != nil {
		return Video{}, fmt.Errorf("probe %s: %w", in, err)
	}
	return v, nil
}

// parseProbe reads ffprobe's JSON, where numbers are strings and may be absent.
func parseProbe(answer []byte) (Video, error) {
	var a struct {
		Streams []struct {
			Codec    string `json:"codec_name"`
			Width    int    `json:"width"`
			Height   int    `json:"height"`
			PixFmt   string `json:"pix_fmt"`
			Range    string `json:"color_range"`
			Space    string `json:"color_space"`
			Average  string `json:"avg_frame_rate"`
			Rate     string `json:"r_frame_rate"`
			Frames   string `json:"nb_frames"`
			Duration string `json:"duration"`
			SideData []struct {
				Rotation float64 `json:"rotation"` // degrees
			} `json:"side_data_list"`
		} `json:"streams"`
		Format struct {
			Duration string `json:"duration"`
		} `json:"format"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return Video{}, fmt.Errorf("read the answer of ffprobe: %w", err)
	}
	if len(a.Streams) == 0 || a.Streams[0].Width <= 0 || a.Streams[0].Height <= 0 {
		return Video{}, errors.New("no video in it")
	}
	s := a.Streams[0]
	v := Video{Codec: s.Codec, Size: pixel.Size{Width: s.Width, Height: s.Height}, Hz: rate(s.Average), Duration: seconds(s.Duration),
		Colour: colourOf(s.PixFmt, s.Range, s.Space)}
	for _, d := range s.SideData {
		if math.Mod(math.Abs(d.Rotation), 180) == 90 { // ffmpeg turns it when it decodes
			v.Size.Width, v.Size.Height = v.Size.Height, v.Size.Width
		}
	}
	v.Steady = v.Hz > 0 && math.Abs(rate(s.Rate)-v.Hz) < 1e-3*v.Hz
	if v.Hz == 0 {
		v.Hz = rate(s.Rate)
	}
	if v.Duration == 0 {
		v.Duration = seconds(a.Format.Duration)
	}
	if n, err := strconv.Atoi(s.Frames); err == nil && n > 0 {
		v.Frames = n
	}
	return v, nil
}

// rate reads a fraction such as 30000/1001; 0 for none.
func rate(text string) float64 {
	above, below, _ := strings.Cut(text, "/")
	n, err1 := strconv.ParseFloat(above, 64)
	d, err2 := strconv.ParseFloat(below, 64)
	hz := n / d
	if err1 != nil || err2 != nil || math.IsNaN(hz) || hz <= 0 || hz > 1e4 { // 90000/1: a clock, not a rate
		return 0
	}
	return hz
}

// seconds reads a length of time; 0 for none.
func seconds(text string) time.Duration {
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(s > 0 && s < 1e9) {
		return 0
	}
	return time.Duration(math.Round(s*1e6)) * time.Microsecond
}

// ErrBroken says that a file does not play.
var ErrBroken = errors.New("broken")

// CountFrames decodes a file and returns how many pictures its video has. It
// fails with ErrBroken when anything in it is; any other error says that it could
// not be found out.
func CountFrames(ctx context.Context, in Input) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("count pictures of %s: %w", in, err) }
	argv := append([]string{"ffprobe", "-hide_banner", "-loglevel", "error", "-of", "csv=p=0", "-select_streams", "v:0", "-count_frames",
		"-show_entries", "stream=nb_read_frames"}, in.args...)
	p, err := Start(ctx, Command{Argv: argv, Stdout: true, Hide: in.hide})
	if err != nil {
		return fail(err)
	}
	answer, err := io.ReadAll(io.LimitReader(p.Stdout, maxAnswer))
	exit := p.Wait(defaultGrace)
	if ctx.Err() != nil {
		return fail(fmt.Errorf("no answer: %w", ctx.Err()))
	}
	if crashed(exit) {
		return fail(fmt.Errorf("%w: %w", ErrBroken, exit))
	}
	if err := errors.Join(err, exit); err != nil {
		return fail(err)
	}
	if words := p.Words(); len(words) > 0 {
		return fail(fmt.Errorf("%w: %s", ErrBroken, strings.Join(words, " | ")))
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(answer)))
	if err != nil {
		return fail(fmt.Errorf("read the answer of ffprobe: %w", err))
	}
	return n, nil
}
