package v4l2cam

import (
	"errors"
	"fmt"

	"github.com/vladimirvivien/go4vl/v4l2"
)

// A stream holds the buffers of an open device. It is the little that go4vl's
// streaming functions need of a StreamingDevice; the embedded interface is nil
// and stands for the methods they do not call.
type stream struct {
	v4l2.StreamingDevice
	fd      uintptr
	count   uint32 // buffers: asked for, then granted
	buffers [][]byte
	granted bool // the driver has allocated buffers
	on      bool
}

func (s *stream) Fd() uintptr            { return s.fd }
func (s *stream) BufferType() uint32     { return v4l2.BufTypeVideoCapture }
func (s *stream) MemIOType() v4l2.IOType { return v4l2.IOTypeMMAP }
func (s *stream) BufferCount() uint32    { return s.count }
func (s *stream) Buffers() [][]byte      { return s.buffers }

// start allocates and maps the buffers, queues them all, and begins to stream.
func (s *stream) start() error {
	request, err := v4l2.InitBuffers(s)
	if err != nil {
		return err
	}
	s.granted = true
	s.count = request.Count // the driver's choice from here on
	if s.count < minBuffers {
		return fmt.Errorf("request buffers: driver has %d; want at least %d", s.count, minBuffers)
	}
	if s.buffers, err = v4l2.MapMemoryBuffers(s); err != nil {
		return err // go4vl keeps what it had mapped by then until the process ends
	}
	for i := range s.count {
		if _, err := v4l2.QueueBuffer(s.fd, v4l2.IOTypeMMAP, v4l2.BufTypeVideoCapture, i); err != nil {
			return err
		}
	}
	if err := v4l2.StreamOn(s); err != nil {
		return err
	}
	s.on = true
	return nil
}

// close undoes whatever start did, the last first. Every step is taken even if
// one before it fails.
func (s *stream) close() error {
	var errs []error
	if s.on {
		errs = append(errs, v4l2.StreamOff(s))
	}
	if s.buffers != nil {
		errs = append(errs, v4l2.UnmapMemoryBuffers(s))
		s.buffers = nil
	}
	if s.granted {
		_, err := v4l2.ResetBuffers(s)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, v4l2.CloseDevice(s.fd))...)
}
