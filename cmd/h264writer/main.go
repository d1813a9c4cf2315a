// H264writer records frames as H.264 video, in segments that survive a power cut.
//
//	frame (in its slot) --vmsplice(2), Matroska--> ffmpeg --> work/<run>/000003.mp4, a fragment at a time
//	                                                 └─ "000003.mp4 is closed" --> index, sidecar --> born/<id>.mp4 --> file message
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
// A segment is complete exactly when ffmpeg reports that it closed it. Its sidecar
// has the first and the last frame (time, boot_ns, seq), and which frames
// between the last segment and the end of this one are in no file (missing): this
// is known by comparing the times in the file with what was sent to ffmpeg, whose
// encoders here neither repeat nor reorder pictures. When it is filed, its header
// gets the time of its first frame, where the clock was synchronised, and an index
// (sidx) that phones need to seek: see index.go.
//
// # What a crash leaves
//
// Files are fragmented MP4 (ISO/IEC 14496-12, 8.8): each fragment stands in the
// file when it is made. What is sent to ffmpeg is noted in work/<run>/journal
// first. When ffmpeg dies, or this worker, or the machine, the segment is cut
// behind its last whole fragment, tried with ffprobe, and filed as recovered;
// one that does not play goes to quarantine/. At most one fragment and one frame
// are lost. Where dir is on a disk, journal and segments are synced once a
// fragment; a power cut takes all that is in RAM.
//
// Segments are filed strictly in the order of their recording, also across runs:
// while one cannot be filed, those behind it wait. What becomes of a segment is
// synced in the journal before it is done, and how far the frames are accounted for
// in .NAME.position, before a recording is removed. So whenever a crash comes,
// each frame that was read is in exactly one segment, or declared lost exactly
// once: missing in a sidecar of its run, or, when that run of the source had no
// segment any more, earlier in the next one's. A frame that an earlier run sent to
// ffmpeg is not recorded again; what the source made while the writer was away is
// missing.
//
// # How it fails
//
// A source that ends or starts again, or that is silent for the length of a
// segment, closes the open one. ffmpeg that dies, or takes nothing for
// stall_after, is started again: at once when it had run well, after a growing
// pause of 0.2 s to 5 s otherwise, its last words in the state. An encoder that
// ends twice in a row before its first fragment gives way to the next for an
// hour, and is used again once it works. A segment that cannot be filed is tried
// again each second, and by the next run of the worker; one that the disk does not
// give back (EIO) for a minute goes to quarantine. A journal that is damaged counts
// up to the damage. An encoder that the machine does not have ends the worker with
// 69; that auto found no hardware encoder is a line in the log.
//
// Counters: frames (sent to ffmpeg), segments, recovered, quarantined, restarts,
// lost_frames (declared lost in sidecars: too late for the ring, or lost with an
// encoder), irregular_frames (their time was not after that of the one before),
// refused_frames (not what their geometry says), damaged_journals.
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
