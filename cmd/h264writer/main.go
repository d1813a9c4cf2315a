// H264writer records frames as H.264 video, in segments that survive a power cut.
//
//	frame (in its slot) --vmsplice(2), Matroska--> ffmpeg --> work/<run>/000003.mp4, a fragment at a time
//	                                                 └─ "000003.mp4 is closed" --> sidecar --> born/<id>.mp4 --> file message
//
// Frames go from the ring's slot into ffmpeg's pipe with no copy of ours. Large
// ones (splice) the kernel does not copy into the pipe either: ffmpeg reads the
// slot, whose lease is held until it has. In front of each stand 42 bytes that say when
// it was captured, in boot time, so that the video has the frames' own times
// however late they come through the pipe: see matroska.go. A gap in the frames
// is a still picture of that length in the video, and a step of the wall clock
// is nothing. A segment begins with a key frame, at the first frame of each
// whole multiple of segment since the first frame of a run of ffmpeg.
//
// Videos have the range and the matrix of the frames, and say so in the stream
// (VUI) and in the file (colr); rgb24 becomes limited-range BT.709 from 1280x720
// up, and BT.601 below. See colour.go for why full range is kept.
//
// A segment is complete exactly when ffmpeg says that it closed it. Its sidecar
// has the first and the last frame (time, boot_ns, seq), and which frames
// between the last segment and the end of this one are not in it (missing): this
// is known by comparing the times in the file with what was sent to ffmpeg.
// ffmpeg neither repeats nor skips any.
//
// # What a crash leaves
//
// Files are fragmented MP4 (ISO/IEC 14496-12, 8.8): each fragment stands in the
// file when it is made. What was sent to ffmpeg is noted in work/<run>/journal
// first. When ffmpeg dies, or this worker, or the machine, the segment is cut
// behind its last whole fragment, tried with ffprobe, and filed as recovered;
// one that does not play goes to quarantine/. At most one fragment and one frame
// are missing. Where dir is on a disk, files are synced once a fragment; a
// power cut takes all that is in RAM.
//
// # How it fails
//
// A source that ends or starts again, or that is silent for the length of a
// segment, closes the open one. ffmpeg that dies, or takes nothing for
// stall_after, is started again: at once when it had run well, after a growing
// pause of 0.2 s to 30 s otherwise, its last words in the state. A segment that
// cannot be filed is tried again each second, and by the next run of the
// worker. An encoder that the machine does not have ends the worker with 69.
//
// Counters: frames (sent to ffmpeg), segments, recovered, quarantined, restarts,
// lost_frames (in no file: too late for the ring, or lost with an encoder),
// irregular_frames (their time was not after that of the one before),
// refused_frames (not what their geometry says).
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() {
	worker.Main(worker.Program[Config]{
		Name:      "h264writer",
		Summary:   "Records frames as H.264 video, in segments that survive a power cut.",
		Reads:     []msg.Kind{msg.KindFrame},
		Publishes: []msg.Kind{msg.KindFile},
		Config:    DefaultConfig,
		Run:       run,
	})
}
