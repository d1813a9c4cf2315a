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

// Video is what ffprobe says of an input's first video stream. Cover pictures
// are none.
type Video struct {
	Codec    string        // as ffmpeg names it: h264
	Size     pixel.Size    // of decoded pictures, turned upright, their pixels made square
	Hz       float64       // pictures a second on average; 0 is not known
	Frames   int           // 0 is not known: the container does not say
	Duration time.Duration // 0 is not known
	Colour   pixel.Colour  // of decoded YCbCr, as far as the input says
	Still    bool          // a file that has one picture
	Rewinds  bool          // ffmpeg's -stream_loop works with this kind of file
}

// maxAnswer is far more than ffprobe says of one stream.
const maxAnswer = 1 << 20

// Probe asks ffprobe what an input is, without decoding all of it. It fails
// when the input cannot be read, has no video, and when ctx ends first.
func Probe(ctx context.Context, in Input) (Video, error) {
	entries := "stream=codec_name,width,height,pix_fmt,color_range,color_space,sample_aspect_ratio,avg_frame_rate,r_frame_rate,nb_frames,duration:stream_side_data=rotation:format=format_name,duration"
	argv := []string{"ffprobe", "-hide_banner", "-loglevel", "error", "-of", "json", "-select_streams", "V:0"}
	if in.file { // is there a second picture, and is the first one shown?
		entries += ":packet=flags"
		argv = append(argv, "-read_intervals", "%+#2")
	}
	argv = append(argv, "-show_entries", entries)
	argv = append(argv, in.args...)
	p, err := Start(ctx, Command{Argv: argv, Stdout: true})
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
	if words := p.Words(); err != nil && len(words) > 0 {
		err = fmt.Errorf("%w; ffprobe's last words: %s", err, strings.Join(words, " | "))
	}
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
			Aspect   string `json:"sample_aspect_ratio"`
			Average  string `json:"avg_frame_rate"`
			Rate     string `json:"r_frame_rate"`
			Frames   string `json:"nb_frames"`
			Duration string `json:"duration"`
			SideData []struct {
				Rotation float64 `json:"rotation"` // degrees
			} `json:"side_data_list"`
		} `json:"streams"`
		Packets []struct {
			Flags string `json:"flags"`
		} `json:"packets"`
		Format struct {
			Name     string `json:"format_name"`
			Duration string `json:"duration"`
		} `json:"format"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return Video{}, fmt.Errorf("read the answer of ffprobe: %w", err)
	}
	if len(a.Streams) == 0 || a.Streams[0].Width <= 0 || a.Streams[0].Height <= 0 {
		return Video{}, errors.New("no video in it (the cover picture of a sound file is none)")
	}
	s := a.Streams[0]
	v := Video{Codec: s.Codec, Size: square(s.Width, s.Height, s.Aspect), Hz: rate(s.Average), Duration: seconds(s.Duration),
		Colour: colourOf(s.PixFmt, s.Range, s.Space), Rewinds: rewinds(a.Format.Name)}
	for _, d := range s.SideData {
		if math.Mod(math.Abs(d.Rotation), 180) == 90 { // ffmpeg turns it when it decodes
			v.Size.Width, v.Size.Height = v.Size.Height, v.Size.Width
		}
	}
	if v.Hz == 0 {
		v.Hz = rate(s.Rate)
	}
	if v.Duration == 0 {
		v.Duration = seconds(a.Format.Duration)
	}
	if n, err := strconv.Atoi(s.Frames); err == nil && n > 0 {
		v.Frames = n
	}
	if len(a.Packets) > 0 && strings.Contains(a.Packets[0].Flags, "D") {
		v.Rewinds = false // the time of frames that an edit list leaves out would be a pause in each round
	}
	if v.Frames == 1 || len(a.Packets) == 1 {
		v.Still, v.Rewinds, v.Hz = true, false, 0
	}
	return v, nil
}

// square is the size of a picture of that sample aspect ratio once its pixels
// are square: its lines stay, and the columns change. What is more than four
// times as wide as high, or the reverse, is no aspect ratio but a mistake.
func square(width, height int, aspect string) pixel.Size {
	above, below, _ := strings.Cut(aspect, ":")
	n, err1 := strconv.ParseFloat(above, 64)
	d, err2 := strconv.ParseFloat(below, 64)
	ratio := n / d
	if err1 == nil && err2 == nil && ratio >= 0.25 && ratio <= 4 && ratio != 1 {
		width = 2 * max(int(math.Round(float64(width)*ratio/2)), 1) // even, as most formats want it
	}
	return pixel.Size{Width: width, Height: height}
}

// rewinds says whether -stream_loop works with a container. With MPEG-TS and
// -PS without sound ffmpeg 5.1 decodes the second round and throws it away, for
// ever; elementary streams and single pictures end after the first.
func rewinds(format string) bool {
	first, _, _ := strings.Cut(format, ",")
	switch first {
	case "mov", "matroska", "avi", "flv", "gif":
		return true
	}
	return false
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
	p, err := Start(ctx, Command{Argv: argv, Stdout: true})
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
