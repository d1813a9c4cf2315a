package ffmpeg

import (
	"testing"

	"github.com/perch-edge/perch/pkg/pixel"
)

// The words of ffprobe 5.1 for files of each kind.
func TestColourOf(t *testing.T) {
	for _, tt := range []struct {
		pixFmt, colourRange, space string
		want                       pixel.Colour
	}{
		{"yuv420p", "tv", "bt709", pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT709}},
		{"yuv420p", "pc", "bt709", pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709}},      // VP9, AV1, FFV1
		{"yuvj420p", "pc", "smpte170m", pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601}}, // H.264
		{"yuvj422p", "", "bt470bg", pixel.Colour{Range: pixel.Full, Matrix: pixel.BT601}},     // MJPEG
		{"yuv420p10le", "tv", "bt2020nc", pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT2020}},
		{"yuv420p", "tv", "smpte240m", pixel.Colour{Range: pixel.Limited, Matrix: pixel.BT709}},
		{"yuv420p", "tv", "unknown", pixel.Colour{Range: pixel.Limited}},
		{"yuv420p", "unknown", "fcc", pixel.Colour{Matrix: pixel.BT601}},
		{"yuv420p", "", "", pixel.Colour{}},
		{"gray", "pc", "", pixel.Colour{Range: pixel.Full}},
		{"gbrp", "pc", "gbr", pixel.Colour{}},
		{"bgr0", "pc", "gbr", pixel.Colour{}},
		{"pal8", "", "", pixel.Colour{}},
	} {
		if got := colourOf(tt.pixFmt, tt.colourRange, tt.space); got != tt.want {
			t.Errorf("colourOf(%q, %q, %q) = %+v; want %+v", tt.pixFmt, tt.colourRange, tt.space, got, tt.want)
		}
	}
}
