package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// input is a source of pictures: a device, another process, the network. It is
// for one goroutine. The order is: open (which settles what the pictures are,
// before the ring is made), start once the readers are there, next for each
// picture, close.
//
//   - next fills slot from its beginning and returns when it holds a whole
//     picture, or when it is known that it will not. It shows that it is alive
//     (Worker.Progress) while it waits. seq is the number that the picture gets
//     when it is published.
//   - A picture that is bad is no error: shot.corrupt says why.
//   - io.EOF: that was the last picture, and all is well.
//   - errBroken: the source broke off; start begins anew.
//   - Any other error ends the worker, ctx's among them.
type input interface {
	start(ctx context.Context) error
	next(ctx context.Context, seq msg.Seq, slot []byte) (shot, error)
	close() error
}

// errBroken marks errors of a source that may be started again.
var errBroken = errors.New("the source broke off")

// shot is what next made of a slot.
type shot struct {
	bytes   int       // of the slot, from its beginning
	stamp   msg.Stamp // when it was captured, as well as can be known
	missed  int       // frames that the source lost before this one
	corrupt error     // why it is not to be published
	unended bool      // a JPEG picture that came without its end marker
}

// settled is what a stream's frames are.
type settled struct {
	msg.Geometry
	slotBytes int
	from      string // for people
}

func settle(format pixel.Format, size pixel.Size, hz float64, from string) (settled, error) {
	planes, bytes, err := pixel.Layout(format, size)
	if err != nil {
		return settled{}, err
	}
	return settled{Geometry: msg.Geometry{Format: string(format), Width: size.Width, Height: size.Height, Planes: planes, Hz: hz},
		slotBytes: bytes, from: from}, nil
}

func (s settled) size() pixel.Size { return pixel.Size{Width: s.Width, Height: s.Height} }

func (s settled) String() string {
	rate := ""
	if s.Hz > 0 {
		rate = fmt.Sprintf(" at %.4g Hz", s.Hz)
	}
	return fmt.Sprintf("%s %s%s from %s", s.size(), s.Format, rate, s.from)
}

// open opens the input that the config names.
func open(ctx context.Context, w *worker.Worker, cfg Config) (input, settled, error) {
	switch cfg.Input.Scheme {
	case V4L2:
		return openV4L2(ctx, w, cfg)
	case File:
		return openFile(w, cfg)
	case Exec:
		return openExec(w, cfg)
	case RTSP:
		return openRTSP(ctx, w, cfg)
	case Sim:
		return openSim(w, cfg)
	}
	return nil, settled{}, fmt.Errorf("open input %q: %s", cfg.Input, wantAddress) // Validate has seen to it
}
