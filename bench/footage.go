package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/pixel"
)

// footage is the number of frames in the file that every encoder reads again
// and again: two seconds, 187 MB at 1080p.
const footage = 60

// makeFootage writes raw frames to a file: the simulated scene while its target
// is to be seen, with the noise of a sensor on its luma, so that an encoder has
// the work that a camera gives it. It is the same at each call.
func makeFootage(path string, s shape, frames int) (err error) {
	drawn, err := scene.New(s.format, s.size)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write footage: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	frame, random := make([]byte, drawn.Bytes()), rand.New(rand.NewPCG(1, 2))
	for i := range frames {
		if err := drawn.Draw(uint64(scene.Cycle+i), frame); err != nil {
			return err
		}
		addNoise(frame[:s.size.Width*s.size.Height], random)
		if _, err := out.Write(frame); err != nil {
			return fmt.Errorf("write footage: %w", err)
		}
	}
	return nil
}

// addNoise adds -2 to 2 to each sample: a deviation of 1.4 levels, as of a small
// sensor by day. The scene's luma, 16 to 235, has room for it.
func addNoise(luma []byte, random *rand.Rand) {
	for i := 0; i+8 <= len(luma); i += 8 {
		dice := random.Uint64()
		for j := range 8 {
			luma[i+j] += byte(dice>>(8*j))%5 - 2
		}
	}
}

// cameraFeedCommand stands for a camera's hardware: raw frames on its standard
// output at their pace, the pages of the file itself (sendfile(2)), so that the
// sensor's read is the first and only copy. It runs until nobody reads.
type cameraFeedCommand struct {
	File  string  `required:""`
	Bytes int     `required:"" help:"Of a frame."`
	Hz    float64 `required:""`
}

// Run feeds.
func (c *cameraFeedCommand) Run(ctx context.Context) (err error) {
	in, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("read footage: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("read footage: %w", err)
	}
	timer, err := newTicker(c.Hz)
	if err != nil {
		return err
	}
	defer timer.close()
	for at := int64(0); ctx.Err() == nil; at %= st.Size() / int64(c.Bytes) * int64(c.Bytes) {
		if _, err := timer.wait(); err != nil {
			return err
		}
		for end := at + int64(c.Bytes); at < end; {
			n, err := unix.Sendfile(int(os.Stdout.Fd()), int(in.Fd()), &at, int(end-at))
			if err == nil && n == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("feed frame: %w", err)
			}
		}
	}
	return nil
}

// firstFrame reads a footage's first frame as a picture.
func firstFrame(path string, s pixel.Size) (pixel.Image, error) {
	_, n, err := pixel.Layout(pixel.YUV420, s)
	if err != nil {
		return pixel.Image{}, err
	}
	in, err := os.Open(path)
	if err != nil {
		return pixel.Image{}, fmt.Errorf("read footage: %w", err)
	}
	defer in.Close()
	data := make([]byte, n)
	if _, err := io.ReadFull(in, data); err != nil {
		return pixel.Image{}, fmt.Errorf("read footage: %w", err)
	}
	img, err := pixel.NewImage(pixel.YUV420, s, data)
	img.Colour = pixel.DefaultColour(pixel.MJPEG) // so that nobody converts them: C and image/jpeg do not either
	return img, err
}
