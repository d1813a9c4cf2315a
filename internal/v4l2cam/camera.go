package v4l2cam

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vladimirvivien/go4vl/v4l2"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
)

// Errors that a caller may want to act on.
var (
	ErrNoDevice = errors.New("no such camera")
	ErrBusy     = errors.New("camera is in use")
	ErrMode     = errors.New("camera does not have this size and format")
	ErrGone     = errors.New("camera is gone")
	ErrStalled  = errors.New("camera has stalled")
)

// Config says which camera, and what it shall deliver.
type Config struct {
	Path          string        // device file or a link to one; /dev/v4l/by-id/... survives replugging
	Width, Height int           // in pixels; the width even for YUYV, both even for YU12 and NV12
	FourCC        string        // "YU12" (yuv420), "NV12", "YUYV", "RGB3" (rgb24) or "MJPG"
	FPS           float64       // frames a second to ask for; 0 leaves the driver's choice
	Buffers       int           // driver's buffers, 2 to 32: how many frames Next may be late; 0 means 4
	StallAfter    time.Duration // how long without a frame is a stall; 0 means 5 s
	Settings      []Setting     // of the controls; those left out stay as they are
}

const (
	defaultBuffers    = 4
	minBuffers        = 2
	maxBuffers        = 32 // VIDEO_MAX_FRAME of linux/videodev2.h
	defaultStallAfter = 5 * time.Second
	maxSide           = 16384 // pixels: more than any camera, and sizes stay below 2^31
	maxFPS            = 1000
)

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	if c.Buffers == 0 {
		c.Buffers = defaultBuffers
	}
	if c.StallAfter == 0 {
		c.StallAfter = defaultStallAfter
	}
	return c
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Path == "" {
		refuse("path is empty; want a device file such as /dev/v4l/by-id/...")
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxSide || c.Height > maxSide {
		refuse("size %dx%d; want 1x1 to %dx%[3]d", c.Width, c.Height, maxSide)
	}
	if !slices.Contains(formats(), c.FourCC) {
		refuse("format %q; want one of %s", c.FourCC, strings.Join(formats(), ", "))
	}
	planar := c.FourCC == "YU12" || c.FourCC == "NV12"
	if c.Width%2 != 0 && (planar || c.FourCC == "YUYV") || c.Height%2 != 0 && planar {
		refuse("size %dx%d; want an even width for YUYV, and both even for YU12 and NV12", c.Width, c.Height)
	}
	if !(c.FPS >= 0 && c.FPS <= maxFPS) {
		refuse("fps %v; want 0 (the driver's choice) to %d", c.FPS, maxFPS)
	}
	if c.Buffers < minBuffers || c.Buffers > maxBuffers {
		refuse("buffers %d; want %d to %d", c.Buffers, minBuffers, maxBuffers)
	}
	if c.StallAfter < 0 {
		refuse("stall after %v; want a positive time", c.StallAfter)
	}
	return errors.Join(errs...)
}

// Info is what the driver really does.
type Info struct {
	Path              string // the device file, links resolved
	Driver, Card, Bus string // as the driver names them
	Width, Height     int
	FourCC            string
	FPS               float64 // 0 where the driver does not say
	FrameBytes        int     // the length dst needs: the frame itself for a raw format, the largest for MJPG
	Buffers           int
	Colour            pixel.Colour // of YCbCr, as the driver describes it
}

// Frame describes what Next has copied.
type Frame struct {
	Bytes             int           // length in dst; 0 when Corrupt
	Sequence          uint32        // the driver's number; it wraps around
	Missed            uint32        // frames the driver lost since the one before; 0 for the first
	CapturedMonotonic time.Duration // CLOCK_MONOTONIC when it was captured: see the package comment
	Corrupt           bool          // not to be used
	Reason            string        // why Corrupt
}

// Camera is an open camera that streams. It is used by one goroutine.
type Camera struct {
	info       Info
	controls   []Control
	stallAfter time.Duration
	dev        *stream
	layout     layout
	poll       [1]unix.PollFd
	lastFrame  time.Time // or when the stream started, or stalled
	previous   uint32    // sequence number of the frame before
	numbered   bool      // previous is valid
	gone       bool
	closed     bool
}

// Open opens the camera, sets its mode and starts it. ctx is looked at between
// the steps; none of them waits for a frame.
func Open(ctx context.Context, cfg Config) (*Camera, error) {
	fail := func(err error) (*Camera, error) {
		return nil, fmt.Errorf("open camera %s: %w", cfg.Path, err)
	}
	if err := cfg.Validate(); err != nil {
		return fail(err)
	}
	cfg = cfg.withDefaults()
	fd, err := openDevice(cfg.Path)
	if err != nil {
		return fail(err)
	}
	dev := &stream{fd: fd, count: uint32(cfg.Buffers)}
	c := &Camera{dev: dev, stallAfter: cfg.StallAfter}
	c.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	if err := c.start(ctx, cfg); err != nil {
		return fail(errors.Join(explainBusy(cfg.Path, err), dev.close()))
	}
	c.lastFrame = time.Now()
	return c, nil
}

// start negotiates and begins to stream.
func (c *Camera) start(ctx context.Context, cfg Config) error {
	driver, err := capability(c.dev.fd)
	if err != nil {
		return err
	}
	pix, err := setMode(c.dev.fd, cfg)
	if err != nil {
		return err
	}
	if c.layout, err = newLayout(pix); err != nil {
		return err
	}
	fps, err := setRate(c.dev.fd, cfg.FPS)
	if err != nil {
		return err
	}
	// After the mode, which another process that streams would have refused.
	if c.controls, err = setControls(c.dev.fd, fmt.Sprintf("%s (%s)", driver.Card, cfg.Path), cfg.Settings); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.dev.start(); err != nil {
		return err
	}
	c.info = Info{
		Path: resolve(cfg.Path), Driver: driver.Driver, Card: driver.Card, Bus: driver.BusInfo,
		Width: cfg.Width, Height: cfg.Height, FourCC: cfg.FourCC, FPS: fps,
		FrameBytes: c.layout.frameBytes, Buffers: len(c.dev.buffers), Colour: colourOf(pix),
	}
	return nil
}

// Info tells what the driver agreed to.
func (c *Camera) Info() Info { return c.info }

// Controls lists what the settings made of the controls, in the order in which
// they were set.
func (c *Camera) Controls() []Control { return c.controls }

// cancelEvery bounds how long Next takes to notice that ctx has ended.
const cancelEvery = 100 * time.Millisecond

// Next waits for the next frame and copies it into dst, which must have
// Info().FrameBytes. It returns ctx's error within 100 ms of its end,
// ErrStalled, ErrGone, or another error of the driver's after which only Close
// helps. A frame that is bad is no error: see Frame.Corrupt.
func (c *Camera) Next(ctx context.Context, dst []byte) (Frame, error) {
	if len(dst) < c.layout.frameBytes {
		return Frame{}, fmt.Errorf("next frame: destination has %d bytes; want at least %d", len(dst), c.layout.frameBytes)
	}
	for {
		if err := ctx.Err(); err != nil {
			return Frame{}, fmt.Errorf("next frame: %w", err)
		}
		quiet := time.Since(c.lastFrame)
		buffer, ok, err := c.dequeue(min(c.stallAfter-quiet, cancelEvery))
		if err != nil {
			return Frame{}, fmt.Errorf("next frame: %w", err)
		}
		if ok {
			return c.deliver(buffer, dst)
		}
		if quiet >= c.stallAfter {
			c.lastFrame = time.Now()
			return Frame{}, fmt.Errorf("next frame: %w: none for %v", ErrStalled, quiet.Round(time.Millisecond))
		}
	}
}

// dequeue takes a filled buffer from the driver, waiting for one no longer
// than patience; ok is false when there was none.
func (c *Camera) dequeue(patience time.Duration) (buffer v4l2.Buffer, ok bool, err error) {
	if c.closed {
		return buffer, false, os.ErrClosed
	}
	if c.gone {
		return buffer, false, ErrGone
	}
	millis := int(math.Ceil(max(patience, 0).Seconds() * 1000))
	c.poll[0].Revents = 0
	n, err := unix.Poll(c.poll[:], millis)
	switch {
	case errors.Is(err, unix.EINTR), err == nil && n == 0:
		return buffer, false, nil
	case err != nil:
		return buffer, false, fmt.Errorf("poll: %w", err)
	}
	buffer, err = v4l2.DequeueBuffer(c.dev.fd, v4l2.IOTypeMMAP, v4l2.BufTypeVideoCapture)
	failed := c.poll[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
	if errors.Is(err, unix.EAGAIN) && !failed {
		return buffer, false, nil
	}
	if err != nil {
		return buffer, false, c.lost(err)
	}
	return buffer, true, nil
}

// lost says what an error of the streaming means: go4vl gives the same one for
// a camera that is gone and for one that has trouble, but only the latter
// still answers.
func (c *Camera) lost(err error) error {
	if _, probe := v4l2.GetCapability(c.dev.fd); probe != nil {
		c.gone = true
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return fmt.Errorf("camera %s failed: %w", c.info.Path, err)
}

// deliver copies the frame out of a buffer and gives the buffer back.
func (c *Camera) deliver(buffer v4l2.Buffer, dst []byte) (Frame, error) {
	c.lastFrame = time.Now()
	frame := Frame{Sequence: buffer.Sequence, Missed: c.missed(buffer.Sequence), CapturedMonotonic: captured(buffer)}
	var err error
	if frame.Bytes, err = c.copyFrame(buffer, dst); err != nil {
		frame.Corrupt, frame.Reason = true, err.Error()
	}
	if _, err := v4l2.QueueBuffer(c.dev.fd, v4l2.IOTypeMMAP, v4l2.BufTypeVideoCapture, buffer.Index); err != nil {
		return Frame{}, fmt.Errorf("next frame: %w", c.lost(err))
	}
	return frame, nil
}

func (c *Camera) copyFrame(buffer v4l2.Buffer, dst []byte) (int, error) {
	if buffer.Flags&v4l2.BufFlagError != 0 {
		return 0, errors.New("flagged as bad by the driver")
	}
	if int(buffer.Index) >= len(c.dev.buffers) || int(buffer.BytesUsed) > len(c.dev.buffers[buffer.Index]) {
		return 0, fmt.Errorf("%d bytes in buffer %d, which does not exist", buffer.BytesUsed, buffer.Index)
	}
	return c.layout.copy(dst, c.dev.buffers[buffer.Index][:buffer.BytesUsed])
}

// missed counts the sequence numbers left out before this one. A number that
// goes back, or stands still, is a driver's restart or habit and no loss.
func (c *Camera) missed(sequence uint32) uint32 {
	step := sequence - c.previous // wraps as the numbers do
	known := c.numbered
	c.previous, c.numbered = sequence, true
	if !known || step == 0 || step > math.MaxInt32 {
		return 0
	}
	return step - 1
}

// captured is the driver's time stamp where that is of CLOCK_MONOTONIC and not
// in the future (uvcvideo's clock=REALTIME is flagged as monotonic), else now.
func captured(buffer v4l2.Buffer) time.Duration {
	now := clock.Monotonic()
	stamp := time.Duration(buffer.Timestamp.Nano())
	if buffer.Flags&v4l2.BufFlagTimestampMask != v4l2.BufFlagTimestampMonotonic || stamp > now || stamp <= 0 {
		return now
	}
	return stamp
}

// Close stops the stream, unmaps and gives back the buffers, and closes the
// device, in this order. A second Close does nothing.
func (c *Camera) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.dev.close()
	if err != nil && !c.gone {
		return fmt.Errorf("close camera %s: %w", c.info.Path, err)
	}
	return nil // a camera that is gone answers nothing: the errors are its absence
}
