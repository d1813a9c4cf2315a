// Sensor-camera publishes frames: of a camera, a video file, another program or
// a simulated scene.
//
//	input --read(2), or one copy--> slot of the ring --> whole? chosen? --> frame/<name>/<stream>
//	  v4l2:PATH          a USB camera or frame grabber; give its path in /dev/v4l/by-id
//	  file:PATH          a video or a picture, decoded by ffmpeg and shown at its own pace; PATH is relative to the working folder
//	  exec:COMMAND       raw frames, or JPEG pictures, that a command writes to its standard output
//	  rtsp://HOST/PATH   a network camera, received over TCP or UDP and decoded by ffmpeg; rtsps:// is encrypted
//	  sim:               a simulated scene whose frames hold their own number
//
// The slots are real memory from the start: slots x size. "sensor-camera
// --example" prints all settings.
//
// # Which frames
//
// capture_hz is a maximum; no frame is made up. A device, a network camera and a command are
// thinned out by the times of their frames, each time the one nearest to when it
// is due, so that one that runs a thousandth fast loses a frame in a thousand; with
// capture_hz = 0 every frame is published. ffmpeg chooses a file's frames likewise,
// by their timestamps. What the simulated scene draws is numbered by its seq in the
// stream's epoch.
//
// # Commands
//
// A command writes frames of exactly the stream's size and format, with nothing
// between them. Rows may be padded: stride says how long they are, and readers
// find it in each frame's planes. rpicam-vid pads rows of --codec yuv420 to 64
// bytes (128 on a Raspberry Pi 5), which is known without the key:
//
//	[sensor.porch]
//	input = "exec:rpicam-vid -t 0 -n --flush --codec yuv420 --width 1296 --height 972 -o -"
//	[sensor.porch.stream.video]
//	size = "1296x972"
//
// Without --flush the last bytes of each frame wait in the command's buffer, and
// the frame is a frame late. Raw frames have no marks. That they begin elsewhere than they should (another
// size or format, padding, a line of text, a frame cut short) shows in when they
// come: a camera is silent after a frame, and so the reader waits where one ends.
// Where it waits at other places, ten times or so, that is trouble: it says what
// was seen and which key is wrong. The command is started again, which cures what
// happened once, and its next frames are held back (corrupt_frames) for as long
// as it took to notice, twice as long each time it happens again. A command that
// never waits, or that is slower than its pipe, cannot be judged so.
//
// Of mjpeg, pictures are told apart by their markers, refused when they are broken
// or of another size, and counted. Each is published as a file that any program
// opens: the standard Huffman tables, which cameras may leave out, are put in, and
// so is a missing end marker (such a picture is published when the next one
// begins, and decoded to see that it is whole). Padding, a second end marker, the
// heads of a multipart stream and text are skipped.
//
// Text on standard output is no picture: it is among the command's last words,
// as its standard error is. A command slower than stall_after needs capture_hz (0.1
// is a frame in 10 s) or a longer stall_after; without them it is started again
// until its pace is known.
//
// # Colours
//
// A frame in YCbCr says which values its samples take and how they were computed
// from RGB (colour_range and colour_matrix of its header), and every reader goes
// by it: pictures, videos and detections have the scene's colours. Nothing is
// converted that need not be. What is known of the source decides:
//
//	file:, rtsp:   what the video says; one that does not: limited range (16..235), and
//	               BT.709 from 1280x720 up, BT.601 below, as players have it
//	v4l2:          what the driver reports: colorspace, ycbcr_enc, quantization
//	exec:          rpicam-vid and libcamera-vid: full-range BT.601 for yuv420 and mjpeg; ffmpeg's
//	               yuvj420p: full range; any other command: limited-range BT.601
//	mjpeg          full-range BT.601, as JFIF has it; few cameras break that rule
//	sim:           full-range BT.601
//
// The stream's key colour overrides that. Pictures too pale (black is dark grey) come
// from a source of limited range that is taken for full; too hard, the other way
// round; reds and greens slightly off, from the wrong matrix:
//
//	[sensor.porch.stream.video]
//	colour = "bt709"             # limited range; "bt709-full" is full range
//
// "tap list" shows what frames say. RGB is taken for sRGB: transfer functions of HDR
// (PQ, HLG) are not applied.
//
// # Files
//
// Each frame of a file is published when it is due by its timestamp in the
// container, counted from the first frame, and carries that time: also where the
// rate varies and after a pause. A timestamp that is missing, or jumps back or by
// more than an hour, counts as a step of 1/hz. Frames are those of the first video
// stream that is no cover picture, as they were decoded: interlaced ones are not
// taken apart, transparent ones lose that, deeper colours are brought to 8 bits.
// Pixels that are not square are made so: 720x576 of 16:15 becomes 768x576, unless
// size says otherwise. A file that is still being written ends where it ends when
// it is read.
//
// With loop = true the file begins again, and the time goes on. A still picture is
// one frame, and with loop it is shown again at capture_hz, or once a second.
//
// What ffmpeg can read and this program cannot (http, rtmp, udp, srt, HLS) goes
// through a command:
//
//	input = "exec:ffmpeg -i http://HOST/PATH -f rawvideo -pix_fmt yuv420p -"
//
// # Controls
//
// exposure, gain, white_balance, rotation and the table controls set a V4L2
// device's controls before its first frame. A value, or "auto", also switches the
// device's own automatic off or on. Values are checked against what the device
// says of itself: one that it does not have ends the worker with 78, and names
// the range, or the controls that there are. What was set is read back and
// logged; a device that took another value is a warning. A device keeps what was
// set when the worker ends; what no key names is left as it is. Names in controls
// are those that "v4l2-ctl -l" lists:
//
//	[sensor.porch]
//	exposure = "10ms"
//	white_balance = 4600
//	controls = {power_line_frequency = 1, sharpness = 3}
//
// A device turns its pictures upside down by its two flips (rotation = 180), if it
// has them. Files and network cameras are turned by ffmpeg, by 90, 180 or 270
// degrees clockwise; size is that of the turned frames. A command's camera is
// controlled by the command's own arguments: rpicam-vid has --shutter, --gain,
// --awb and --rotation.
//
// # Network cameras
//
// Their video may be H.264, H.265, M-JPEG, MPEG-4, MPEG-2, VP8, VP9 or AV1; of
// several videos the first is received. Frames begin with the first key frame and
// go on with every picture that the camera sends, across its bursts: pictures of
// the past that it sends at once are published with their own times, 1.25 times as
// fast as they were captured. JPEG pictures are passed on as they are if format
// is mjpeg, without rotation and at their own size. What was lost on the way, came
// before the first key frame or could not be decoded in time counts as missed.
//
// transport = "udp" loses pictures where datagrams are lost, and is for cameras and
// networks that want it; a camera that refuses TCP (461) is asked for UDP by
// itself. A camera that hangs up or is silent for stall_after is connected to again
// after a pause of 0.2 s to 5 s, and of 30 s if it refused the password, since some
// lock out who asks too often.
//
// The password goes to the host and port of input only, redirects to others are
// not followed, and not in clear: a camera that wants that (Basic) is refused unless
// allow_basic is true. The certificate of an rtsps:// camera is verified; for one
// that the camera made for itself set ca_file:
//
//	openssl s_client -connect CAMERA:322 </dev/null | openssl x509 > camera.pem
//
// A camera may change its size (day and night, another user). Without the key
// size the worker then ends with 75 and begins anew in the new size. With it, ffmpeg
// scales pictures of the same shape; others would be distorted, and are trouble.
//
// # When
//
// A frame of a device has the driver's own time (CLOCK_MONOTONIC, brought to boot
// time). One of a network camera has the time of its capture by the camera's RTP
// clock, which is related to boot time by the pictures that arrive soonest, or by
// the camera's sender reports if its clock is right (see internal/rtspcam): within
// a frame's time, as a rule. RTP times that stand still or jump are warned of, and
// the time of arrival is used. One from a command has the time when its first byte
// was read: later than its capture by what the command took. A file's has the time
// when it is due: the moment of the first one, and the file's own timestamps from
// there; a file that is decoded too slowly, so that a frame is more than a second
// late, is counted anew from there. A simulated one has the time of its
// drawing.
//
// # One copy
//
// Pixels from a pipe are copied once: by the kernel, in read(2), from the pipe
// to the ring's slot, where readers look at them in place. The tests
// TestPixelsGoFromThePipeIntoTheSlot and, for files, whose frames come with
// timestamps between them, TestPixelsOfAFileGoFromThePipeIntoTheSlot compare each
// address. Of mjpeg, only what was read behind a picture's end is moved, to the next
// slot, and what stands behind tables that are put in. A device's frame is copied
// once from the driver's buffer. Of a running worker it can be seen by
//
//	strace -f -e trace=read -e raw=read -p PID | grep read   the buffers' addresses
//	grep video /proc/PID/maps                                where the ring is
//	perf top -p PID                                          no memmove, only the kernel's copy
//
// The rest from the command line, for a box in box.toml with a camera "porch":
//
//	tap hz box.toml porch                                    the rate, and frames lost on the way
//	supervisor status box.toml                               the counters and the trouble
//	sensor-camera --check -o json -t box.toml -n porch       the memory of its ring
//
// # How it fails
//
// Counters: frames (published), missed_frames (lost before they came here),
// corrupt_frames (refused or held back), dropped_frames (no slot was free: a reader holds more
// than it declared), skipped_frames (not wanted by capture_hz), restarts.
//
// A command that ends, or is silent for stall_after, is started again after a
// growing pause of 0.2 s to 30 s, in the same ring and epoch; the state says why
// until the next frame. So is a network camera, see above. A device that is silent ends
// the worker with 1, one that is missing or pulled out with 69, one that another
// process has with 75, one without this size, format or control with 78. At the end of a
// file the worker waits until the readers that have come have the ring open, and
// ends with 0; with loop = true it begins again. A file that ffmpeg fails to
// decode, or that has no frame in the end, ends the worker with 1; what ffmpeg
// complains of in one that it can decode is a warning in the log.
//
// User and password of an rtsp:// address are not in logs, states, errors and the
// arguments of ffmpeg.
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
