// Sensor-camera publishes frames: of a camera, a video file, another program or
// a simulated scene.
//
//	input --read(2), or one copy--> slot of the ring --> whole? chosen? --> frame/<name>/<stream>
//	  v4l2:PATH          a USB camera or frame grabber; give its path in /dev/v4l/by-id
//	  file:PATH          a video, decoded by ffmpeg at its own pace; PATH is relative to the working folder
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
// capture_hz = 0 every frame is published. Of a file ffmpeg
// takes the first frame of each 1/capture_hz seconds of the video's own time; more
// than a file has is refused. What the simulated scene draws is numbered by its seq
// in the stream's epoch.
//
// A command writes frames of exactly the stream's size and format, without
// padding and with nothing between them. Of mjpeg, pictures are told apart by
// their markers, refused when they are broken or of another size, and counted.
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
// the time of arrival is used. One from a pipe has the time when its first byte was
// read: later than its capture by what the command took. A simulated one has the time of its
// drawing.
//
// # One copy
//
// Pixels from a pipe are copied once: by the kernel, in read(2), from the pipe
// to the ring's slot, where readers look at them in place. The test
// TestPixelsGoFromThePipeIntoTheSlot compares each address. Of mjpeg, only what
// was read behind a picture's end is moved, to the next slot. A device's frame is
// copied once from the driver's buffer. Of a running worker it can be seen by
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
// corrupt_frames (refused), dropped_frames (no slot was free: a reader holds more
// than it declared), skipped_frames (not wanted by capture_hz), restarts.
//
// A command that ends, or is silent for stall_after, is started again after a
// growing pause of 0.2 s to 30 s, in the same ring and epoch; the state says why
// until the next frame. So is a network camera, see above. A device that is silent ends
// the worker with 1, one that is missing or pulled out with 69, one that another
// process has with 75, one without this size, format or control with 78. At the end of a
// file the worker waits until the readers that have come have the ring open, and
// ends with 0; with loop = true it begins again. ffmpeg that fails to decode a
// file ends it with 1.
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
