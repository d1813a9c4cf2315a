// H264writer records frames as H.264 video, in segments that survive a power cut.
//
//	frame (in its slot) --vmsplice(2), Matroska--> ffmpeg --> work/<run>/000003.mp4, a fragment at a time
//	                                                 └─ "000003.mp4 is closed" --> index, sidecar --> born/<id>.mp4 --> file message
//
// Frames go from the ring's slot into ffmpeg's pipe without a copy in this program.
// Large ones (splice) are not even copied by the kernel: ffmpeg reads the slot,
// whose lease is held until then. Before each frame stand 42 bytes with the time of
// its capture, so that the video has the frames' own times however late they come
// through the pipe: see matroska.go. A gap in the frames is a still picture of that
// length in the video. Steps of the wall clock have no effect. A segment begins with
// a key frame, at the first frame of each whole multiple of segment, counted from
// the first frame of a run of ffmpeg.
//
// Videos keep the range and the matrix of the frames and state both in the stream
// (VUI) and in the file (colr). rgb24 becomes limited range, with BT.709 from
// 1280x720 up and BT.601 below. colour.go explains why full range is kept.
//
// A segment is complete when ffmpeg reports that it closed it. Its sidecar has the
// first and the last frame (time, boot_ns, seq) and the frames since the last
// segment that are in no file (missing). Those are found by comparing the times in
// the file with what was sent to ffmpeg: the encoders neither repeat nor reorder
// pictures. When a segment is filed, its header gets the time of its first frame, if
// the clock was synchronised, and the index (sidx) that phones need to seek: see
// index.go.
//
// # What a crash leaves
//
// Files are fragmented MP4 (ISO/IEC 14496-12, 8.8): each fragment is in the file as
// soon as it is made. Every frame is noted in work/<run>/journal before it is sent
// to ffmpeg. If ffmpeg, this worker or the machine dies, the segment is cut after
// its last whole fragment, checked with ffprobe, and filed as recovered. A segment
// that does not play goes to quarantine/. At most one fragment and one frame are
// lost. If dir is on a disk, journal and segments are synced once per fragment; a
// power cut takes everything that is in RAM.
//
// Segments are filed strictly in the order of their recording, also across runs:
// while one cannot be filed, the later ones wait. A decision about a segment is
// synced in the journal before it is carried out. Before a recording is removed, the
// position up to which frames are accounted for is synced in .NAME.position. So
// whenever a crash comes, each frame that was read is in exactly one segment, or
// declared lost exactly once: as missing in a sidecar of its run or, if that run of
// the source had no later segment, as earlier in the next one's. Frames that an
// earlier run sent to ffmpeg are not recorded again. Frames that the source
// published while the writer was away are missing.
//
// # How it fails
//
// A source that ends, starts again or is silent for the length of a segment closes
// the open segment. If ffmpeg dies, or takes nothing for stall_after, it is started
// again: at once if it had run well, otherwise after a growing pause of 0.2 s to
// 5 s. Its last words are in the state. If an encoder ends twice in a row before its
// first fragment, the next one is used for an hour; then the better one is tried
// again, and used once it works. A segment that cannot be filed is tried again each
// second, and by the next run. One that the disk cannot read (EIO) for a minute goes
// to quarantine. A damaged journal counts up to the damage. If the machine has none
// of the encoders, the worker ends with 69. If auto finds no hardware encoder, that
// is a line in the log.
//
// Counters: frames (sent to ffmpeg), segments, recovered, quarantined, restarts,
// lost_frames (declared lost in sidecars: overwritten in the ring before they were
// read, or lost with an encoder), irregular_frames (their time was not after that of
// the frame before), refused_frames (not what their geometry says),
// damaged_journals.
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
