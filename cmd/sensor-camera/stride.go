package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/perch-edge/perch/internal/ffmpeg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// openExec assumes that the command writes the stream's size and format. Frames
// with padded rows are published unchanged: readers find the stride in the planes.
func openExec(w *worker.Worker, cfg Config) (input, settled, error) {
	_, s := cfg.stream()
	frames, err := settle(s.Format, s.Size, s.CaptureHz, "exec:"+cfg.argv()[0])
	if err != nil {
		return nil, settled{}, err
	}
	if stride := cfg.stride(s); stride > 0 {
		if frames.Planes, frames.slotBytes, err = padded(s.Format, s.Size, stride); err != nil {
			return nil, settled{}, err
		}
	}
	frames.setColour(commandColour(cfg.argv(), s))
	c := newChild(w, cfg, ffmpeg.Command{Argv: cfg.argv()}, frames)
	c.patient = newPatient(s.CaptureHz == 0, c.stall)
	if s.Format != pixel.MJPEG {
		c.align = newAligner(s.Format, s.Size, int64(frames.slotBytes), s.CaptureHz)
	}
	return c, frames, nil
}

// padded is the layout of a frame whose first plane has rows of stride bytes.
// Rows of chroma are padded in proportion, as libcamera and V4L2 do it
// (V4L2_PIX_FMT_YUV420: half the bytes of a luma row).
func padded(f pixel.Format, size pixel.Size, stride int) (planes []pixel.Plane, bytes int, err error) {
	planes, _, err = pixel.Layout(f, size)
	if err != nil {
		return nil, 0, err
	}
	if len(planes) == 0 {
		return nil, 0, errors.New("pictures have no rows in memory; want none for mjpeg")
	}
	row := planes[0].Stride
	switch most := 2*row + maxPadding; {
	case stride < row || stride > most:
		return nil, 0, fmt.Errorf("want 0, or %d to %d bytes for a row of %s %s", row, most, size, f)
	case f == pixel.YUV420 && stride%2 != 0:
		return nil, 0, errors.New("want an even number: a row of chroma has half of it")
	}
	for i := range planes {
		p := &planes[i]
		p.Offset, p.Stride = bytes, stride*p.Stride/row
		bytes += p.Stride * p.Rows
	}
	return planes, bytes, nil
}

// maxPadding is more than any device is known to pad rows by.
const maxPadding = 4096

// stride is how long the rows of a command's frames are; 0 is not padded.
func (c *Config) stride(s StreamConfig) int {
	if s.Stride > 0 || c.Input.Scheme != Exec || s.Format != pixel.YUV420 || !runsRpicam(c.argv()) {
		return s.Stride
	}
	align := 64
	if isPi5() {
		align = 128
	}
	return alignUp(s.Size.Width, align)
}

func alignUp(n, to int) int { return (n + to - 1) / to * to }

// runsRpicam reports whether a command is rpicam-vid or libcamera-vid, also by way
// of another program such as nice, stdbuf or a shell. What is behind a pipe of a
// shell is not looked at: it may write anything.
func runsRpicam(argv []string) bool {
	for _, word := range argv {
		if strings.Contains(word, "|") {
			return false
		}
		for part := range strings.FieldsSeq(word) {
			switch filepath.Base(part) {
			case "rpicam-vid", "libcamera-vid":
				return true
			}
		}
	}
	return false
}

// isPi5 reports whether this is a Raspberry Pi 5, whose ISP wants rows of chroma in
// multiples of 64 bytes; up to the Pi 4 that holds for luma (libcamera, pipeline
// handlers rpi/pisp and rpi/vc4).
func isPi5() bool {
	compatible, err := os.ReadFile("/proc/device-tree/compatible")
	return err == nil && strings.Contains(string(compatible), "brcm,bcm2712")
}
