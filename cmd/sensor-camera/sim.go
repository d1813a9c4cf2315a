package main

import (
	"context"
	"errors"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/turbojpeg"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// sim draws the simulated scene into the slots, at deadlines that do not drift.
type sim struct {
	w      *worker.Worker
	scene  *scene.Scene
	hz     float64
	begun  time.Time
	tick   int64 // of the next frame
	jpeg   *turbojpeg.Encoder
	canvas []byte // what jpeg encodes
	size   pixel.Size
}

// simQuality keeps the frame number readable and the target's place exact.
const simQuality = 85

func openSim(w *worker.Worker, cfg Config) (input, settled, error) {
	_, s := cfg.stream()
	if s.CaptureHz == 0 {
		s.CaptureHz = simHz
	}
	frames, err := settle(s.Format, s.Size, s.CaptureHz, "sim:")
	if err != nil {
		return nil, settled{}, err
	}
	frames.setColour(scene.Colour())
	in := &sim{w: w, hz: s.CaptureHz, size: s.Size}
	drawn := s.Format
	if s.Format == pixel.MJPEG {
		drawn = pixel.YUV420
		if in.jpeg, err = turbojpeg.NewEncoder(); err != nil {
			return nil, settled{}, err
		}
	}
	if in.scene, err = scene.New(drawn, s.Size); err != nil {
		return nil, settled{}, errors.Join(err, in.close())
	}
	if in.jpeg != nil {
		in.canvas = make([]byte, in.scene.Bytes())
	}
	return in, frames, nil
}

func (s *sim) start(context.Context) error {
	s.begun, s.tick = time.Now(), 0
	return nil
}

func (s *sim) next(ctx context.Context, seq msg.Seq, slot []byte) (shot, error) {
	if err := s.w.Wait(ctx, s.due(s.tick)); err != nil {
		return shot{}, err
	}
	got := shot{stamp: s.w.Now()}
	for s.tick++; time.Since(s.due(s.tick)) >= 0; s.tick++ {
		got.missed++
	}
	if s.jpeg == nil {
		got.bytes = s.scene.Bytes()
		return got, s.scene.Draw(uint64(seq), slot[:got.bytes])
	}
	err := s.scene.Draw(uint64(seq), s.canvas)
	if err == nil {
		got.bytes, err = s.encode(slot)
	}
	return got, err
}

// due is when a frame is to be drawn, reckoned from the first so that no error
// adds up.
func (s *sim) due(tick int64) time.Time {
	return s.begun.Add(time.Duration(float64(tick) / s.hz * float64(time.Second)))
}

func (s *sim) encode(slot []byte) (int, error) {
	img, err := pixel.NewImage(pixel.YUV420, s.size, s.canvas)
	if err != nil {
		return 0, err
	}
	img.Colour = scene.Colour()
	picture, err := s.jpeg.Encode(img, simQuality)
	if err != nil {
		return 0, err
	}
	return copy(slot, picture), nil // pixel.Layout has room for any scene at this quality
}

func (s *sim) close() error {
	if s.jpeg == nil {
		return nil
	}
	return s.jpeg.Close()
}
