package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"

	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// quality of all pictures here, which is jpegwriter's default.
const quality = 85

// pictured is what an encoder says of a block of pictures.
type pictured struct {
	CPU   float64 `json:"cpu_us"`
	Bytes int     `json:"bytes"` // of the last picture
}

// pictureLoopCommand makes pictures of one frame, again and again. It is told
// "encode N". Testdata/jpeg.c is the same in C.
type pictureLoopCommand struct {
	File   string `required:""`
	Width  int    `required:""`
	Height int    `required:""`
	Std    bool   `help:"By image/jpeg of Go's library instead of ours."`
}

// Run obeys until stdin ends.
func (c *pictureLoopCommand) Run(ctx context.Context) (err error) {
	img, err := firstFrame(c.File, pixel.Size{Width: c.Width, Height: c.Height})
	if err != nil {
		return err
	}
	encoder, err := turbojpeg.NewEncoder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, encoder.Close()) }()
	encode := func() (int, error) {
		picture, err := encoder.Encode(img, quality)
		return len(picture), err
	}
	if c.Std {
		encode = stdEncoder(img)
	}
	_, lines := orders(ctx)
	if err := answer(pictured{}); err != nil {
		return err
	}
	for line := range lines {
		_, n := split(line)
		p, before := pictured{}, cpuMicros()
		for range n {
			if p.Bytes, err = encode(); err != nil {
				return err
			}
		}
		p.CPU = cpuMicros() - before
		if err := answer(p); err != nil {
			return err
		}
	}
	return nil
}

// stdImage is a picture as Go's library has it, in the same memory.
func stdImage(img pixel.Image) *image.YCbCr {
	w, h := img.Size.Width, img.Size.Height
	return &image.YCbCr{Y: img.Data[:w*h], Cb: img.Data[w*h:][:w*h/4], Cr: img.Data[w*h+w*h/4:],
		YStride: w, CStride: w / 2, SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: image.Rect(0, 0, w, h)}
}

// stdEncoder encodes with image/jpeg.
func stdEncoder(img pixel.Image) func() (int, error) {
	std, out := stdImage(img), bytes.Buffer{}
	return func() (int, error) {
		out.Reset()
		if err := jpeg.Encode(&out, std, &jpeg.Options{Quality: quality}); err != nil {
			return 0, fmt.Errorf("encode with image/jpeg: %w", err)
		}
		return out.Len(), nil
	}
}
