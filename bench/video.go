package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// way is what a camera's frames are encoded by.
type way struct {
	preset string
	kind   kind
}

type kind string

const (
	bare       kind = "ffmpeg alone, from the file"
	lent       kind = "camera, h264writer"
	copied     kind = "camera, h264writer without splice"
	everything kind = "camera, h264writer, jpegwriter, detector"
)

// ways are measured in turn. What jpegwriter and detector add does not depend on
// the preset.
func ways() []way {
	return []way{{"veryfast", bare}, {"veryfast", lent}, {"veryfast", copied}, {"veryfast", everything},
		{"ultrafast", bare}, {"ultrafast", lent}, {"ultrafast", copied}}
}

// The names of the fleets' entries, beside cameraName.
const (
	clipsName    = "clips"
	picturesName = "pictures"
	objectsName  = "objects"
	ffmpegName   = "ffmpeg" // of clips
)

// encoded is one window: the CPU time of each process, in µs for each frame that
// was encoded.
type encoded struct {
	cpu             map[string]float64
	inference       float64 // of the detector's, what its model took
	frames, offered float64
}

// keptUp says whether the encoder took the frames as they came.
func (e encoded) keptUp() bool { return e.frames > 0.95*e.offered }

// writing is what h264writer and its ffmpeg take; or ffmpeg alone.
func (e encoded) writing() float64 { return e.cpu[clipsName] + e.cpu[ffmpegName] }

// pipeline is the same with the camera's process.
func (e encoded) pipeline() float64 { return e.cpu[cameraName] + e.writing() }

// all is everything that runs but the model.
func (e encoded) all() (sum float64) {
	for _, us := range e.cpu {
		sum += us
	}
	return sum - e.inference
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

// against is a figure of a way set against ffmpeg alone, in pairs. Where the
// machine was too slow for one of the two the pair says nothing, and does not count.
func (r videoResult) against(w way, figure func(encoded) float64) float64 {
	var list []float64
	for _, round := range r.rounds {
		if it, alone := round[w], round[way{w.preset, bare}]; it.keptUp() && alone.keptUp() {
			list = append(list, figure(it)/alone.writing())
		}
	}
	return median(list)
}

func (r videoResult) bars() []bar {
	ratio := func(preset string, k kind, figure func(encoded) float64) float64 {
		return r.against(way{preset, k}, figure)
	}
	stdin := func(k kind) float64 {
		return max(ratio("veryfast", k, encoded.writing), ratio("ultrafast", k, encoded.writing))
	}
	return []bar{
		{what: "1080p30, veryfast: CPU of camera, h264writer and its ffmpeg / ffmpeg alone", must: 1.08, aim: 1.03,
			value: ratio("veryfast", lent, encoded.pipeline),
			note: fmt.Sprintf("%s without splice; %s with jpegwriter, detector and supervisor too, inference left out",
				number(ratio("veryfast", copied, encoded.pipeline)), number(ratio("veryfast", everything, encoded.all)))},
		{what: "1080p30, ultrafast: the same", must: 1.25, aim: 1.12, value: ratio("ultrafast", lent, encoded.pipeline),
			note: number(ratio("ultrafast", copied, encoded.pipeline)) + " without splice"},
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
		row := []string{w.preset, string(w.kind)}
		for _, name := range []string{ffmpegName, cameraName, clipsName, picturesName, objectsName, "supervisor"} {
			cell := "–"
			if _, there := r.rounds[0][w].cpu[name]; there {
				cell = fmt.Sprintf("%.2f", r.median(w, func(e encoded) float64 { return e.cpu[name] / 1000 }))
			}
			row = append(row, cell)
		}
		var frames, offered float64
		for _, round := range r.rounds {
			frames, offered = frames+round[w].frames, offered+round[w].offered
		}
		ratio := func(figure func(encoded) float64) string { return number(r.against(w, figure)) }
		rows = append(rows, append(row, ratio(encoded.writing), ratio(encoded.pipeline), ratio(encoded.all), fmt.Sprintf("%.0f/%.0f", frames, offered)))
	}
	return table([]string{"preset", "what runs", "ffmpeg ", "sensor-camera ", "h264writer ", "jpegwriter ", "detector ", "supervisor ",
		"ffmpeg + h264writer ", "+ sensor-camera ", "all but inference ", "frames "}, rows)
}
