package v4l2cam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/vladimirvivien/go4vl/v4l2"
)

// fourCC is the number of a format's name, "YUYV".
func fourCC(name string) v4l2.FourCCType {
	return binary.LittleEndian.Uint32([]byte(name))
}

func fourCCName(code v4l2.FourCCType) string {
	return string(binary.LittleEndian.AppendUint32(nil, code))
}

// capability asks what kind of device this is, and refuses what cannot be
// captured from.
func capability(fd uintptr) (v4l2.Capability, error) {
	got, err := v4l2.GetCapability(fd)
	if errors.Is(err, v4l2.ErrorUnsupported) || errors.Is(err, v4l2.ErrorBadArgument) {
		return got, fmt.Errorf("%w: this is not a V4L2 device", ErrNoDevice)
	}
	if err != nil {
		return got, err
	}
	caps := got.GetCapabilities() // of this device file, not of the whole hardware
	switch {
	case caps&v4l2.CapVideoCapture != 0 && caps&v4l2.CapStreaming != 0:
		return got, nil
	case caps&v4l2.CapVideoCaptureMPlane != 0:
		return got, fmt.Errorf("%w: %q has the multi-planar interface only, as CSI cameras do: capture with rpicam-vid", ErrMode, got.Card)
	case caps&v4l2.CapVideoCapture != 0:
		return got, fmt.Errorf("%w: %q cannot stream", ErrMode, got.Card)
	}
	return got, fmt.Errorf("%w: %q does not capture video by this device file (capabilities %#x); a camera has several, try the one that ends in index0",
		ErrMode, got.Card, caps)
}

// setMode asks for size and format and returns what the driver has set, which
// must be the same: a driver answers with what it has, and that is no error
// to it.
func setMode(fd uintptr, cfg Config) (v4l2.PixFormat, error) {
	asked := v4l2.PixFormat{
		Width: uint32(cfg.Width), Height: uint32(cfg.Height),
		PixelFormat: fourCC(cfg.FourCC), Field: v4l2.FieldNone,
	}
	refused := v4l2.SetPixFormat(fd, asked)
	if refused != nil && !errors.Is(refused, v4l2.ErrorBadArgument) {
		return v4l2.PixFormat{}, fmt.Errorf("set format: %w", refused)
	}
	got, err := v4l2.GetPixFormat(fd)
	if err != nil {
		return got, fmt.Errorf("get format: %w", err)
	}
	if got.Width != asked.Width || got.Height != asked.Height || got.PixelFormat != asked.PixelFormat {
		return got, fmt.Errorf("%w: asked for %s, the driver set %s; it offers %s", ErrMode, mode(asked), mode(got), offers(fd))
	}
	return got, refused // EINVAL though it is set: strange, but an answer
}

func mode(pix v4l2.PixFormat) string {
	return fmt.Sprintf("%dx%d %s", pix.Width, pix.Height, fourCCName(pix.PixelFormat))
}

// offers lists the device's formats and sizes: "YUYV 640x480 1280x720, MJPG
// 1920x1080".
func offers(fd uintptr) string {
	described, err := v4l2.GetAllFormatDescriptions(fd)
	if len(described) == 0 {
		return fmt.Sprintf("no list of its modes (%v)", err)
	}
	var all []string
	for _, d := range described {
		entry := fourCCName(d.PixelFormat)
		sizes, _ := v4l2.GetFormatFrameSizes(fd, d.PixelFormat) // some drivers do not list them
		for _, s := range sizes {
			entry += " " + sizeRange(s.Size)
		}
		all = append(all, entry)
	}
	return strings.Join(all, ", ")
}

func sizeRange(s v4l2.FrameSize) string {
	least, most := fmt.Sprintf("%dx%d", s.MinWidth, s.MinHeight), fmt.Sprintf("%dx%d", s.MaxWidth, s.MaxHeight)
	if least == most {
		return least
	}
	return least + ".." + most
}

// setRate asks for frames a second (0: for none) and returns the rate that the
// driver has set, 0 where it does not say. A rate that it has not is no error:
// the nearest is taken.
func setRate(fd uintptr, fps float64) (float64, error) {
	if fps > 0 {
		asked := v4l2.StreamParam{Capture: v4l2.CaptureParam{TimePerFrame: interval(fps)}}
		err := v4l2.SetStreamParam(fd, v4l2.BufTypeVideoCapture, asked)
		if err != nil && !errors.Is(err, v4l2.ErrorUnsupported) {
			return 0, fmt.Errorf("set %v frames a second: %w", fps, err)
		}
	}
	got, err := v4l2.GetStreamParam(fd, v4l2.BufTypeVideoCapture)
	t := got.Capture.TimePerFrame
	if errors.Is(err, v4l2.ErrorUnsupported) || err == nil && t.Numerator == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get frame rate: %w", err)
	}
	return float64(t.Denominator) / float64(t.Numerator), nil
}

// interval is the time a frame takes, as V4L2's fraction of a second: 1/30
// for 30 fps, 100/2997 for 29.97. It is exact to a thousandth of a frame.
func interval(fps float64) v4l2.Fract {
	n := 1.0
	for n < 1000 && math.Abs(math.Round(fps*n)-fps*n) > 1e-6 {
		n *= 10
	}
	return v4l2.Fract{Numerator: uint32(n), Denominator: max(uint32(math.Round(fps*n)), 1)}
}
