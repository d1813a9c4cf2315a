package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// way is what a camera's frames are encoded by, while ffmpeg alone encodes the
// same frames beside it.
type way struct {
	preset string
	kind   kind
}

type kind string

const (
	lent       kind = "camera, h264writer"
	copied     kind = "camera, h264writer without splice"
	everything kind = "camera, h264writer, jpegwriter, detector"
)

// ways are measured in turn.
func ways() (list []way) {
	for _, preset := range []string{"veryfast", "ultrafast"} {
		for _, k := range []kind{lent, copied, everything} {
			list = append(list, way{preset, k})
		}
	}
	return list
}

// The names of the fleets' entries, beside cameraName, and of what is no entry.
const (
	clipsName    = "clips"
	picturesName = "pictures"
	objectsName  = "objects"
	ffmpegName   = "ffmpeg" // of clips
	aloneName    = "ffmpeg alone"
)

// encoded is one window: the CPU time of each process, in µs for each frame that
// was encoded.
type encoded struct {
	cpu       map[string]float64
	inference float64            // of the detector's, what its model took
	frames    map[string]float64 // that each ffmpeg took
	offered   float64
}

// keptUp says whether both encoders took the frames as they came.
func (e encoded) keptUp() bool {
	return min(e.frames[ffmpegName], e.frames[aloneName]) > 0.95*e.offered
}

// writing is what h264writer and its ffmpeg take.
func (e encoded) writing() float64 { return e.cpu[clipsName] + e.cpu[ffmpegName] }

// fleet is everything that runs but the model, and ffmpeg alone.
func (e encoded) fleet() (sum float64) {
	for _, us := range e.cpu {
		sum += us
	}
	return sum - e.inference - e.cpu[aloneName]
}

// videoResult is, round by round, what each way took.
type videoResult struct{ rounds []map[way]encoded }

// measureVideo lets all ways encode the same frames in turn.
func measureVideo(ctx context.Context, s *studio, rounds int) (r videoResult, err error) {
	start := time.Now()
	for i := range rounds {
		order, got := ways(), map[way]encoded{}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, w := range order {
			e, err := s.encode(ctx, w)
			if err := errors.Join(err, ctx.Err()); err != nil {
				return r, fmt.Errorf("%s, %s: %w", w.kind, w.preset, err)
			}
			got[w] = e
		}
		r.rounds = append(r.rounds, got)
		say("video: round %d of %d, %.0f s", i+1, rounds, time.Since(start).Seconds())
	}
	return r, nil
}

// median is the median of a figure of a way.
func (r videoResult) median(w way, figure func(encoded) float64) float64 {
	return pairs(len(r.rounds), func(i int) float64 { return figure(r.rounds[i][w]) })
}

// against is a figure of a way set against ffmpeg alone, window by window. Where
// the machine was too slow for one of the two a window says nothing, and does not
// count.
func (r videoResult) against(w way, figure func(encoded) float64) float64 {
	var list []float64
	for _, round := range r.rounds {
		if e := round[w]; e.keptUp() {
			list = append(list, figure(e)/e.cpu[aloneName])
		}
	}
	return median(list)
}

func (r videoResult) bars() []bar {
	ratio := func(preset string, k kind, figure func(encoded) float64) float64 {
		return r.against(way{preset, k}, figure)
	}
	whole := func(preset, what string, must, aim float64) bar {
		return bar{what: "1080p30, " + preset + ": " + what, must: must, aim: aim, value: ratio(preset, everything, encoded.fleet),
			note: fmt.Sprintf("%s without jpegwriter and detector; %s without splice too",
				number(ratio(preset, lent, encoded.fleet)), number(ratio(preset, copied, encoded.fleet)))}
	}
	stdin := func(k kind) float64 {
		return max(ratio("veryfast", k, encoded.writing), ratio("ultrafast", k, encoded.writing))
	}
	return []bar{
		whole("veryfast", "CPU of the whole fleet but the model / ffmpeg alone", 1.08, 1.03),
		whole("ultrafast", "the same", 1.25, 1.12),
		{what: "1080p30, the dearer preset: CPU of h264writer and its ffmpeg / ffmpeg alone", must: 1.1, aim: 1.05, value: stdin(lent),
			note: number(stdin(copied)) + " without splice"},
	}
}

func (r videoResult) table() string {
	if len(r.rounds) == 0 {
		return ""
	}
	var rows [][]string
	for _, w := range ways() {
		milliseconds := func(figure func(encoded) float64) string {
			return fmt.Sprintf("%.2f", r.median(w, figure)/1000)
		}
		row := []string{w.preset, string(w.kind)}
		for _, name := range []string{aloneName, ffmpegName, cameraName, clipsName, picturesName, objectsName, "supervisor"} {
			cell := "–"
			if _, there := r.rounds[0][w].cpu[name]; there {
				cell = milliseconds(func(e encoded) float64 { return e.cpu[name] })
			}
			row = append(row, cell)
		}
		ratio := func(figure func(encoded) float64) string { return fmt.Sprintf("%.3f", r.against(w, figure)) }
		rows = append(rows, append(row, milliseconds(func(e encoded) float64 { return e.inference }),
			ratio(encoded.writing), ratio(encoded.fleet), r.taken(w)))
	}
	return table([]string{"preset", "what runs", "ffmpeg alone ", "ffmpeg ", "sensor-camera ", "h264writer ", "jpegwriter ", "detector ", "supervisor ",
		"of it the model ", "h264writer + ffmpeg ", "all but the model ", "frames "}, rows)
}

// taken is how many frames the two encoders took, of those there were.
func (r videoResult) taken(w way) string {
	var took, alone, offered float64
	for _, round := range r.rounds {
		e := round[w]
		took, alone, offered = took+e.frames[ffmpegName], alone+e.frames[aloneName], offered+e.offered
	}
	return fmt.Sprintf("%.0f and %.0f/%.0f", took, alone, offered)
}
