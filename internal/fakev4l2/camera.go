package fakev4l2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config is the one mode that the camera has: S_FMT is answered with it
// whatever was asked, as a driver answers that has no other.
type Config struct {
	Width, Height int     // in pixels, even, at least 4 x 2
	FourCC        string  // "YUYV", "NV12", "YU12", "RGB3" or "MJPG"
	FPS           float64 // frames a second until S_PARM or SetFPS says otherwise
	// LinePadding is the number of bytes (even) that follow each line of a raw
	// format in the buffer, and half as many for each line of YU12's colour
	// planes: what a driver does whose hardware writes aligned lines.
	LinePadding int
	// Colorspace, YCbCrEnc and Quantization are what the driver answers in these
	// fields; without any, those of a webcam.
	Colorspace, YCbCrEnc, Quantization uint32
	// Controls are what can be set of it; see Webcam. Plugged in again it has
	// forgotten what they were set to.
	Controls []Control
}

// validate refuses what the camera could not be.
func (c Config) validate() error {
	var errs []error
	if c.Width < 4 || c.Height < 2 || c.Width%2 != 0 || c.Height%2 != 0 {
		errs = append(errs, fmt.Errorf("size %dx%d; want even numbers, at least 4x2", c.Width, c.Height))
	}
	if c.FourCC != "MJPG" && c.planes() == nil {
		errs = append(errs, fmt.Errorf("fourcc %q; want YUYV, NV12, YU12, RGB3 or MJPG", c.FourCC))
	}
	if !(c.FPS >= minFPS && c.FPS <= maxFPS) {
		errs = append(errs, fmt.Errorf("fps %v; want %v to %v", c.FPS, minFPS, maxFPS))
	}
	if c.LinePadding < 0 || c.LinePadding%2 != 0 {
		errs = append(errs, fmt.Errorf("line padding %d; want an even number of bytes", c.LinePadding))
	}
	return errors.Join(append(errs, validateControls(c.Controls))...)
}

const (
	minFPS = 0.1
	maxFPS = 1000

	maxBuffers   = 8
	paddingByte  = 0xee                  // stands at the ends of padded lines
	pollPatience = 20 * time.Millisecond // how long a non-blocking DQBUF waits: see the package comment
)

// plane is one plane of a raw picture: rows of pixels, each stride bytes after
// the one before.
type plane struct{ rowBytes, rows, stride int }

// planes describes the buffer of a raw format, in the order of the bytes; nil
// for any other.
func (c Config) planes() []plane {
	w, h, pad := c.Width, c.Height, c.LinePadding
	switch c.FourCC {
	case "YUYV":
		return []plane{{2 * w, h, 2*w + pad}}
	case "RGB3":
		return []plane{{3 * w, h, 3*w + pad}}
	case "NV12":
		return []plane{{w, h, w + pad}, {w, h / 2, w + pad}}
	case "YU12":
		chroma := plane{w / 2, h / 2, (w + pad) / 2}
		return []plane{{w, h, w + pad}, chroma, chroma}
	}
	return nil
}

// A camera is the device behind one path, from being plugged in to being
// unplugged.
type camera struct {
	cfg       Config
	body      []byte // of a JPEG
	picture   []byte // a raw picture without padding, before it goes into a buffer
	imageSize int    // most bytes of a frame
	bufferLen int    // imageSize rounded up to pages
	gone      chan struct{}

	// store puts bytes into the page cache of the device file.
	store func(offset int64, p []byte) syscall.Errno

	// memory guards the contents of buffers. It is not held during store, which
	// may wait for a page that a read of the same file has locked.
	memory  sync.RWMutex
	buffers []byte

	mu       sync.Mutex
	owner    *handle // who holds the buffers, nil when none are allocated
	inDriver []bool  // which buffers are queued or filled
	queued   chan int
	filled   chan filled
	stop     chan struct{} // closed by STREAMOFF; nil when not streaming
	ended    chan struct{}
	interval time.Duration
	stalled  bool
	values   map[uint32]int32 // of controls, by id
	next     mishap
	stats    Stats
}

// mishap is what shall happen to the next captured frame.
type mishap struct {
	skip      uint32 // sequence numbers lost before it
	corrupt   bool   // flag it with V4L2_BUF_FLAG_ERROR
	truncated bool   // announce only keep bytes
	keep      int
}

// filled is a captured frame that waits to be dequeued.
type filled struct {
	index    int
	sequence uint32
	used     int
	flags    uint32
	at       unix.Timespec // CLOCK_MONOTONIC
}

// A handle is an open file descriptor of the device.
type handle struct{ nonblock bool }

// Stats is what the camera knows of itself.
type Stats struct {
	Captured  uint64 // frames put into buffers
	Lost      uint64 // frames for which no buffer was queued
	Open      int    // open file descriptors
	Buffers   int    // buffers allocated
	Streaming bool
}

func newCamera(cfg Config) (*camera, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &camera{cfg: cfg, gone: make(chan struct{}), interval: intervalOf(cfg.FPS), values: map[uint32]int32{}}
	for _, k := range cfg.Controls {
		c.values[k.ID] = k.Default
	}
	if cfg.FourCC == "MJPG" {
		var err error
		if c.body, err = jpegBody(cfg.Width, cfg.Height); err != nil {
			return nil, err
		}
		c.imageSize = max(2*cfg.Width*cfg.Height, maxComment+len(c.body))
	}
	tight := 0
	for _, p := range cfg.planes() {
		tight += p.rowBytes * p.rows
		c.imageSize += p.stride * p.rows
	}
	c.picture = make([]byte, tight)
	page := os.Getpagesize()
	c.bufferLen = (c.imageSize + page - 1) / page * page
	return c, nil
}

func intervalOf(fps float64) time.Duration {
	return time.Duration(float64(time.Second) / fps)
}

// allocate answers REQBUFS: it gives up to maxBuffers buffers to h, or takes
// them back for a count of 0.
func (c *camera) allocate(h *handle, count uint32) (uint32, syscall.Errno) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner != nil && c.owner != h || c.stop != nil {
		return 0, syscall.EBUSY
	}
	if count == 0 {
		c.free()
		return 0, 0
	}
	n := int(min(count, maxBuffers))
	c.owner, c.stats.Buffers = h, n
	c.inDriver = make([]bool, n)
	c.queued, c.filled = make(chan int, n), make(chan filled, n)
	c.memory.Lock()
	c.buffers = make([]byte, n*c.bufferLen)
	c.memory.Unlock()
	return uint32(n), 0
}

// free forgets the buffers; c.mu is held.
func (c *camera) free() {
	c.owner, c.inDriver, c.queued, c.filled, c.stats.Buffers = nil, nil, nil, nil, 0
}

// enqueue answers QBUF.
func (c *camera) enqueue(h *handle, index uint32) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner != h || index >= uint32(len(c.inDriver)) || c.inDriver[index] {
		return syscall.EINVAL
	}
	c.inDriver[index] = true
	c.queued <- int(index) // has room for every buffer
	return 0
}

// dequeue answers DQBUF: it waits for a frame, on a non-blocking descriptor no
// longer than pollPatience.
func (c *camera) dequeue(ctx context.Context, h *handle) (filled, syscall.Errno) {
	c.mu.Lock()
	owner, stop, ready := c.owner, c.stop, c.filled
	c.mu.Unlock()
	if owner != h || stop == nil {
		return filled{}, syscall.EINVAL
	}
	var patience <-chan time.Time
	if h.nonblock {
		patience = time.After(pollPatience)
	}
	select {
	case f := <-ready:
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.index < len(c.inDriver) {
			c.inDriver[f.index] = false
		}
		return f, 0
	case <-c.gone:
		return filled{}, syscall.ENODEV
	case <-stop:
		return filled{}, syscall.EINVAL
	case <-patience:
		return filled{}, syscall.EAGAIN
	case <-ctx.Done():
		return filled{}, syscall.EINTR
	}
}

// streamOn answers STREAMON.
func (c *camera) streamOn(h *handle) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner != h {
		return syscall.EINVAL
	}
	if c.stop == nil {
		c.stop, c.ended = make(chan struct{}), make(chan struct{})
		c.stats.Streaming = true
		go c.capture(c.stop, c.ended)
	}
	return 0
}

// streamOff answers STREAMOFF: no frame is captured any more when it returns,
// and every buffer is the application's again.
func (c *camera) streamOff(h *handle) syscall.Errno {
	c.mu.Lock()
	if c.owner != h {
		c.mu.Unlock()
		return syscall.EINVAL
	}
	stop, ended := c.stop, c.ended
	c.stop, c.stats.Streaming = nil, false
	clear(c.inDriver)
	c.queued, c.filled = make(chan int, len(c.inDriver)), make(chan filled, len(c.inDriver))
	c.mu.Unlock()
	if stop != nil {
		close(stop)
		<-ended
	}
	return 0
}

// release undoes whatever h had: the descriptor was closed.
func (c *camera) release(h *handle) {
	_ = c.streamOff(h) // it may never have streamed
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Open--
	if c.owner == h {
		c.free()
	}
}

// capture takes a frame at each interval until stop is closed. When it falls
// behind it slows down: frames are lost only for want of a buffer, or when
// asked for.
func (c *camera) capture(stop <-chan struct{}, ended chan<- struct{}) {
	defer close(ended)
	due := time.Now()
	for seq := uint32(0); ; {
		c.mu.Lock()
		due = due.Add(c.interval)
		c.mu.Unlock()
		if now := time.Now(); due.Before(now) {
			due = now
		}
		select {
		case <-stop:
			return
		case <-c.gone:
			return
		case <-time.After(time.Until(due)):
		}
		seq = c.expose(seq)
	}
}

// expose captures frame seq and returns the number of the one after it.
func (c *camera) expose(seq uint32) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled || c.stop == nil {
		return seq
	}
	var index int
	select {
	case index = <-c.queued:
	default:
		c.stats.Lost++
		return seq + 1
	}
	seq += c.next.skip
	f := filled{index: index, sequence: seq, flags: bufFlagMapped | bufFlagDone | bufFlagTimestampMonotonic}
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &f.at); err != nil {
		f.flags |= bufFlagError
	}
	buffer := c.fill(index, seq, &f)
	if c.next.corrupt || c.store(int64(index)*int64(c.bufferLen), buffer) != 0 {
		f.flags |= bufFlagError
	}
	if c.next.truncated {
		f.used = min(f.used, c.next.keep)
	}
	c.next = mishap{}
	c.stats.Captured++
	c.filled <- f // has room for every buffer
	return seq + 1
}

// fill draws frame seq into a buffer, sets the bytes used, and returns the
// buffer's memory, which nobody else writes until the next call.
func (c *camera) fill(index int, seq uint32, f *filled) []byte {
	c.memory.Lock()
	defer c.memory.Unlock()
	buffer := c.buffers[index*c.bufferLen:][:c.bufferLen]
	if c.body != nil {
		f.used = putJPEG(seq, c.body, buffer)
		return buffer
	}
	Fill(seq, c.picture)
	from, to := c.picture, buffer
	for _, p := range c.cfg.planes() {
		for range p.rows {
			copy(to, from[:p.rowBytes])
			for i := p.rowBytes; i < p.stride; i++ {
				to[i] = paddingByte
			}
			from, to = from[p.rowBytes:], to[p.stride:]
		}
	}
	f.used = c.imageSize
	return buffer
}
