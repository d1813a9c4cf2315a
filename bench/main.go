// Bench measures what perch promises, in real processes, and says which bars
// are reached.
//
//	bench ──starts──> frame writers, frame readers, peers in C, csvwriter, ffmpeg, mover, uploader, rclone, whole fleets
//	  └── moments and CPU time of each ──> pairs ──> medians ──> tables ──(--write)──> docs/BENCHMARKS.md
//
// A ratio compares two things that ran in turn, block by block, within one
// run: each round gives a pair, and the median of the pairs is what counts. So
// it holds where the machine's speed drifts, as it does on shared ones.
// Absolute times are for orientation. What is counted (lost rows, frames whose
// pixels are wrong) is exact, and an error; what is timed never is: the tables
// say PASS or MISS.
//
// The processes that are measured are perch's programs in bin/, this program
// again, by its hidden commands, and testdata/*.c, which is compiled when it is
// needed (cc and the headers of libzmq and libturbojpeg). It fails where those
// are absent, where bin/ lacks a program ("make build"), and when a process ends
// or answers out of turn.
package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// atMost ends a run in which something hangs.
const atMost = 25 * time.Minute

// commands are what this program can be told to do.
type commands struct {
	Run          runCommand          `cmd:"" default:"withargs" help:"Measure, and print the tables."`
	FrameWriter  frameWriterCommand  `cmd:"" hidden:""`
	FrameReader  frameReaderCommand  `cmd:"" hidden:""`
	PixelWriter  pixelWriterCommand  `cmd:"" hidden:""`
	PixelReader  pixelReaderCommand  `cmd:"" hidden:""`
	RowPublisher rowPublisherCommand `cmd:"" hidden:""`
	RingLoops    ringLoopsCommand    `cmd:"" hidden:""`
	CameraFeed   cameraFeedCommand   `cmd:"" hidden:""`
	PictureLoop  pictureLoopCommand  `cmd:"" hidden:""`
	WebServer    webServerCommand    `cmd:"" hidden:""`
	BareLoop     bareLoopCommand     `cmd:"" hidden:""`
}

func main() {
	var c commands
	k := kong.Parse(&c, kong.Name("bench"), kong.Description("Measures what perch promises."), kong.UsageOnError())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, atMost)
	k.BindTo(ctx, (*context.Context)(nil))
	err := k.Run()
	cancel()
	stop()
	k.FatalIfErrorf(err)
}
