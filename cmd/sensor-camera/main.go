// Sensor-camera publishes the frames of a camera, a video file, another program
// or a simulated scene.
//
//	input --read(2), or one copy--> slot of the ring --> whole? chosen? --> frame/<name>/<stream>
//	  v4l2:PATH          a USB camera or frame grabber, as v4l2:/dev/v4l/by-id/NAME
//	  file:PATH          a video or a picture, decoded by ffmpeg and played at its own pace
//	  exec:COMMAND       raw frames or JPEG pictures from a command's standard output
//	  rtsp://HOST/PATH   a network camera over TCP or UDP, decoded by ffmpeg; rtsps:// is encrypted
//	  sim:               a simulated scene whose frames show their own number
//
// The path of a file is relative to the working folder. The ring's memory is
// allocated at the start: slots x size. "sensor-camera --example" prints all
// settings.
//
// # Which frames
//
// capture_hz is a maximum; no frame is made up. Of a device, a network camera or a
// command, the frame nearest to each due time is published, judged by the frames'
// own times. A source that runs a thousandth too fast therefore loses one frame in
// a thousand. ffmpeg chooses a file's frames in the same way, by their timestamps.
// With capture_hz = 0 every frame is published. The number that a simulated frame
// shows is its seq in the stream's epoch.
//
// # Commands
//
// A command writes frames of exactly the stream's size and format, with nothing
// between them. Rows may be padded: set stride to their length in bytes, and
// readers find it in each frame's planes. rpicam-vid pads the rows of --codec
// yuv420 to 64 bytes (128 on a Raspberry Pi 5); this is known without the key:
//
//	[sensor.porch]
//	input = "exec:rpicam-vid -t 0 -n --flush --codec yuv420 --width 1296 --height 972 -o -"
//	[sensor.porch.stream.video]
//	size = "1296x972"
//
// Without --flush the last bytes of each frame wait in the command's buffer, and
// every frame is one frame late.
//
// Nothing in raw video marks where a frame begins. The worker notices by timing
// when frames are out of step (another size or format, padding, a line of text, a
// frame cut short): a camera pauses after each frame, so the pipe should run empty
// at the end of one. When it runs empty elsewhere about ten times, that is
// trouble, and the message names the key to change. The command is started again,
// which cures a single slip. Its next frames are held back (corrupt_frames) for as
// long as it took to notice, and twice as long each time it happens again. A
// command that never pauses, or that is slower than its pipe, cannot be checked.
//
// JPEG pictures (format = "mjpeg") are separated by their markers. Broken pictures
// and those of another size are refused and counted. Each published picture is a
// file that any program opens: the standard Huffman tables, which cameras may leave
// out, are added, and so is a missing end marker. A picture without one is
// published when the next picture begins, after it was decoded to check that it is
// whole. Padding, repeated end markers, multipart headers and text are skipped.
//
// Text on standard output is treated like standard error: its last lines are in
// the trouble. For a command slower than stall_after set capture_hz (0.1 is a frame
// in 10 s) or a longer stall_after; without either it is restarted until its pace
// is known.
//
// # Colours
//
// The header of a frame in YCbCr has the range of its samples (colour_range) and
// the matrix they were computed with (colour_matrix). Readers use both, so that
// pictures, videos and detections show the scene's colours. Samples are converted
// only where a format demands it. Range and matrix are those of the source:
//
//	file:, rtsp:   what the video states; otherwise, as in players, limited range (16..235)
//	               with BT.709 from 1280x720 up, and BT.601 below
//	v4l2:          what the driver reports: colorspace, ycbcr_enc, quantization
//	exec:          full-range BT.601 for yuv420 and mjpeg of rpicam-vid and libcamera-vid;
//	               full range for ffmpeg's yuvj420p; otherwise limited-range BT.601
//	mjpeg          full-range BT.601, as JFIF defines it; few cameras differ
//	sim:           full-range BT.601
//
// The stream's key colour overrides that. If pictures look pale (black is dark
// grey), the source has limited range and is taken for full range. If they have too
// much contrast, it is the other way round. If reds and greens are slightly off,
// the matrix is wrong:
//
//	[sensor.porch.stream.video]
//	colour = "bt709"             # limited range; "bt709-full" is full range
//
// "tap list" shows range and matrix. RGB is taken for sRGB; the transfer functions
// of HDR (PQ, HLG) are not applied.
//
// # Files
//
// Each frame of a file is published when it is due by its timestamp, counted from
// the first frame, and carries that time. Variable rates and pauses are kept. A
// timestamp that is missing, jumps back or jumps by more than an hour counts as a
// step of 1/hz.
//
// The first video stream that is no cover picture is decoded. Interlaced frames
// are not deinterlaced, transparency is dropped, and deeper colours become 8 bits.
// Pixels that are not square are made square: 720x576 of 16:15 becomes 768x576,
// unless size is set. Pictures that change their size in the middle of a file are
// scaled. Where their shape changes too they get black bars, and a warning in the
// log names both sizes.
//
// A file that is still being written ends where it ends when it is read. With loop
// = true it begins again, and time goes on. A still picture is one frame; with loop
// it is repeated at capture_hz, or once a second.
//
// For what ffmpeg reads and this program does not (http, rtmp, udp, srt, HLS), use
// a command:
//
//	input = "exec:ffmpeg -i http://HOST/PATH -f rawvideo -pix_fmt yuv420p -"
//
// # Controls
//
// exposure, gain, white_balance, rotation and the table controls set a V4L2
// device's controls before its first frame. A number turns the device's own
// automatic off; "auto" turns it on. A value that the device does not support ends
// the worker with 78, and the message names the range or the controls there are.
// Each control is read back and logged; a warning reports a device that took
// another value. Devices keep their settings when the worker ends, and controls
// without a key are left alone. The names in controls are those of "v4l2-ctl -l":
//
//	[sensor.porch]
//	exposure = "10ms"
//	white_balance = 4600
//	controls = {power_line_frequency = 1, sharpness = 3}
//
// rotation = 180 uses a device's two flips, if it has them. Files and network
// cameras are turned by ffmpeg, by 90, 180 or 270 degrees clockwise; size is that
// of the turned frames. Control a command's camera by the command's own arguments:
// rpicam-vid has --shutter, --gain, --awb and --rotation.
//
// # Network cameras
//
// H.264, H.265, M-JPEG, MPEG-4, MPEG-2, VP8, VP9 and AV1 are supported. If there
// are several videos, the first is received. Frames begin with the first key frame.
// Past pictures that the camera sends in a burst are published with their own
// times, at most 1.25 times as fast as they were captured. JPEG pictures pass
// unchanged if format is mjpeg, the size is their own and rotation is 0. Pictures
// that were lost on the way, came before the first key frame or could not be
// decoded in time count as missed.
//
// transport = "udp" loses pictures where datagrams are lost; use it where the
// camera or the network needs it. A camera that refuses TCP (461) is asked for UDP
// without the key. After a camera hung up or was silent for stall_after, the worker
// reconnects after 0.2 s to 5 s, and after 30 s if the camera refused the password,
// since some lock the user out.
//
// The password is sent only to the host and port of input; redirects to others are
// not followed. A camera that wants it in clear (Basic) is refused unless
// allow_basic is true. The certificate of an rtsps:// camera is verified. If the
// camera made its own, save it and set ca_file to that file:
//
//	openssl s_client -connect CAMERA:322 </dev/null | openssl x509 > camera.pem
//
// A camera may change the size of its pictures (at night, by another user). If the
// key size is not set, the worker then ends with 75 and starts with the new size.
// If it is set, ffmpeg scales pictures of the same shape; any other shape is
// trouble, since the frames would be distorted.
//
// # When
//
// Each frame carries the time of its capture, as far as that is known:
//
//	v4l2:          the driver's time (CLOCK_MONOTONIC, converted to boot time)
//	rtsp:          the camera's RTP clock, related to boot time by the pictures that arrive
//	               soonest, or by its sender reports if its clock is right: as a rule within
//	               one frame's time (see internal/rtspcam). If the RTP times stand still or
//	               jump, the time of arrival is used, with a warning
//	exec:          when the first byte was read, which is after the command's own delay
//	file:          when the frame was due. A file that is decoded so slowly that a frame is
//	               more than a second late is counted anew from there
//	sim:           when the frame was drawn
//
// # One copy
//
// Pixels from a pipe are copied once: by the kernel, in read(2), from the pipe to
// the ring's slot, where readers use them in place. Two tests compare the addresses:
// TestPixelsGoFromThePipeIntoTheSlot, and TestPixelsOfAFileGoFromThePipeIntoTheSlot
// for files, whose frames come with timestamps between them. Of mjpeg, two things
// are moved: bytes read past a picture's end, and what follows added tables. A
// device's frame is copied once from the driver's buffer. To see this on a running
// worker:
//
//	strace -f -e trace=read -e raw=read -p PID | grep read   the buffers' addresses
//	grep video /proc/PID/maps                                where the ring is
//	perf top -p PID                                          no memmove, only the kernel's copy
//
// For a topology box.toml with a camera "porch":
//
//	tap hz box.toml porch                                    the rate, and frames lost on the way
//	supervisor status box.toml                               the counters and the trouble
//	sensor-camera --check -o json -t box.toml -n porch       the memory of its ring
//
// # How it fails
//
// Counters: frames (published), missed_frames (lost before they came here),
// corrupt_frames (refused or held back), dropped_frames (no slot was free: a reader
// holds more than it declared), skipped_frames (not wanted by capture_hz), restarts.
//
// A command that ends, or is silent for stall_after, is started again after a
// growing pause of 0.2 s to 30 s, in the same ring and epoch; until the next frame
// the state has the reason. Network cameras are reconnected, see above. A device
// that is silent ends the worker with 1; one that is missing or was unplugged with
// 69; one in use by another process with 75; one without this size, format or
// control with 78.
//
// At the end of a file the worker waits until its present readers have opened the
// ring, and ends with 0. A file that ffmpeg cannot decode, or that has no frame,
// ends the worker with 1. What ffmpeg complains of in a file that it can decode is
// a warning in the log.
//
// The user and the password of an rtsp:// address never appear in logs, states,
// errors and the arguments of ffmpeg. In a command's last words those of any URL
// are replaced by ***.
package main

import (
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func main() { worker.Main(program()) }

func program() worker.Program[Config] {
	return worker.Program[Config]{
		Name:      "sensor-camera",
		Summary:   "Publishes the frames of a camera, a video file or another program.",
		Publishes: []msg.Kind{msg.KindFrame},
		Stream:    "video",
		Config:    DefaultConfig,
		Run:       run,
	}
}
