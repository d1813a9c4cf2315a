package fakev4l2

import (
	"context"
	"math"
	"syscall"
	"time"
)

// ioctl answers one request; a is its argument, changed in place.
func (c *camera) ioctl(ctx context.Context, h *handle, request uint32, a arg) syscall.Errno {
	select {
	case <-c.gone:
		return syscall.ENODEV
	default:
	}
	switch request {
	case vidiocQuerycap:
		return c.querycap(a)
	case vidiocEnuminput:
		return c.enuminput(a)
	case vidiocGInput:
		a.put32(inputIndex, 0)
		return 0
	case vidiocSInput:
		return refuseUnless(a.u32(inputIndex) == 0)
	case vidiocEnumFmt:
		return c.enumFmt(a)
	case vidiocEnumFramesizes:
		return c.enumFramesizes(a)
	case vidiocEnumFrameintervals:
		return c.enumFrameintervals(a)
	case vidiocGFmt, vidiocTryFmt:
		return c.putFormat(a)
	case vidiocSFmt:
		return c.setFormat(a)
	case vidiocGParm, vidiocSParm:
		return c.streamparm(a, request == vidiocSParm)
	case vidiocQueryctrl, vidiocQuerymenu, vidiocGCtrl, vidiocSCtrl:
		return c.controlIoctl(request, a)
	default:
		return c.bufferIoctl(ctx, h, request, a)
	}
}

// bufferIoctl answers the requests that move buffers.
func (c *camera) bufferIoctl(ctx context.Context, h *handle, request uint32, a arg) syscall.Errno {
	switch request {
	case vidiocReqbufs:
		return c.reqbufs(h, a)
	case vidiocQuerybuf:
		return c.querybuf(a)
	case vidiocQbuf:
		if !isMmapCapture(a, bufferType, bufferMemory) {
			return syscall.EINVAL
		}
		c.putBuffer(a, a.u32(bufferIndex), bufFlagMapped|bufFlagQueued)
		return c.enqueue(h, a.u32(bufferIndex))
	case vidiocDqbuf:
		return c.dqbuf(ctx, h, a)
	case vidiocStreamon:
		if a.u32(0) != bufTypeVideoCapture {
			return syscall.EINVAL
		}
		return c.streamOn(h)
	case vidiocStreamoff:
		if a.u32(0) != bufTypeVideoCapture {
			return syscall.EINVAL
		}
		return c.streamOff(h)
	}
	return syscall.ENOTTY
}

func refuseUnless(ok bool) syscall.Errno {
	if !ok {
		return syscall.EINVAL
	}
	return 0
}

func isMmapCapture(a arg, typeOffset, memoryOffset int) bool {
	return a.u32(typeOffset) == bufTypeVideoCapture && a.u32(memoryOffset) == memoryMmap
}

func (c *camera) querycap(a arg) syscall.Errno {
	const caps = capVideoCapture | capExtPixFormat | capStreaming
	a.putText(capabilityDriver, "fakev4l2")
	a.putText(capabilityCard, "perch fake camera")
	a.putText(capabilityBusInfo, "platform:fakev4l2-000")
	a.put32(capabilityVersion, 6<<16)
	a.put32(capabilityCapabilities, caps|capDeviceCaps)
	a.put32(capabilityDeviceCaps, caps)
	return 0
}

func (c *camera) enuminput(a arg) syscall.Errno {
	if a.u32(inputIndex) != 0 {
		return syscall.EINVAL
	}
	a.putText(inputName, "Camera 1")
	a.put32(inputType, inputTypeCamera)
	return 0
}

func (c *camera) enumFmt(a arg) syscall.Errno {
	if a.u32(fmtdescIndex) != 0 || a.u32(fmtdescType) != bufTypeVideoCapture {
		return syscall.EINVAL
	}
	if c.cfg.FourCC == "MJPG" {
		a.put32(fmtdescFlags, fmtFlagCompressed)
	}
	a.putText(fmtdescDescription, c.cfg.FourCC)
	a.put32(fmtdescPixelformat, fourCC(c.cfg.FourCC))
	return 0
}

func (c *camera) enumFramesizes(a arg) syscall.Errno {
	if a.u32(frmsizeIndex) != 0 || a.u32(frmsizePixelFormat) != fourCC(c.cfg.FourCC) {
		return syscall.EINVAL
	}
	a.put32(frmsizeType, typeDiscrete)
	a.put32(frmsizeWidth, uint32(c.cfg.Width))
	a.put32(frmsizeHeight, uint32(c.cfg.Height))
	return 0
}

func (c *camera) enumFrameintervals(a arg) syscall.Errno {
	if a.u32(frmivalIndex) != 0 || a.u32(frmivalPixelFormat) != fourCC(c.cfg.FourCC) ||
		a.u32(frmivalWidth) != uint32(c.cfg.Width) || a.u32(frmivalHeight) != uint32(c.cfg.Height) {
		return syscall.EINVAL
	}
	a.put32(frmivalType, typeDiscrete)
	c.putInterval(a, frmivalNumerator, frmivalDenominator)
	return 0
}

// setFormat keeps the camera's own mode, but not while buffers are allocated.
func (c *camera) setFormat(a arg) syscall.Errno {
	c.mu.Lock()
	busy := c.owner != nil
	c.mu.Unlock()
	if busy {
		return syscall.EBUSY
	}
	return c.putFormat(a)
}

func (c *camera) putFormat(a arg) syscall.Errno {
	if a.u32(formatType) != bufTypeVideoCapture {
		return syscall.EINVAL
	}
	clear(a[pixWidth:])
	a.put32(pixWidth, uint32(c.cfg.Width))
	a.put32(pixHeight, uint32(c.cfg.Height))
	a.put32(pixPixelformat, fourCC(c.cfg.FourCC))
	a.put32(pixField, fieldNone)
	a.put32(pixSizeimage, uint32(c.imageSize))
	if planes := c.cfg.planes(); planes != nil {
		a.put32(pixBytesperline, uint32(planes[0].stride))
		a.put32(pixColorspace, colorspaceSRGB)
	} else {
		a.put32(pixColorspace, colorspaceJPEG)
	}
	a.put32(pixPriv, privMagic)
	a.put32(pixYcbcrEnc, c.cfg.YCbCrEnc)
	a.put32(pixQuantization, c.cfg.Quantization)
	if c.cfg.Colorspace != 0 {
		a.put32(pixColorspace, c.cfg.Colorspace)
	}
	return 0
}

// streamparm reports the frame rate, after it has taken over a new one.
func (c *camera) streamparm(a arg, set bool) syscall.Errno {
	if a.u32(streamparmType) != bufTypeVideoCapture {
		return syscall.EINVAL
	}
	if n, d := a.u32(parmNumerator), a.u32(parmDenominator); set && n != 0 && d != 0 {
		c.setFPS(float64(d) / float64(n))
	}
	clear(a[parmCapability:])
	a.put32(parmCapability, capTimeperframe)
	a.put32(parmReadbuffers, 2)
	c.putInterval(a, parmNumerator, parmDenominator)
	return 0
}

func (c *camera) setFPS(fps float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interval = intervalOf(min(max(fps, minFPS), maxFPS))
}

// putInterval writes the time a frame takes as a fraction of a second, with
// the resolution of a thousandth of a frame a second.
func (c *camera) putInterval(a arg, numerator, denominator int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fps := float64(time.Second) / float64(c.interval)
	a.put32(numerator, 1000)
	a.put32(denominator, uint32(math.Round(1000*fps)))
}

func (c *camera) reqbufs(h *handle, a arg) syscall.Errno {
	if !isMmapCapture(a, requestType, requestMemory) {
		return syscall.EINVAL
	}
	n, errno := c.allocate(h, a.u32(requestCount))
	a.put32(requestCount, n)
	a.put32(requestCapabilities, bufCapSupportsMmap)
	return errno
}

func (c *camera) querybuf(a arg) syscall.Errno {
	c.mu.Lock()
	n := uint32(len(c.inDriver))
	c.mu.Unlock()
	if a.u32(bufferType) != bufTypeVideoCapture || a.u32(bufferIndex) >= n {
		return syscall.EINVAL
	}
	c.putBuffer(a, a.u32(bufferIndex), bufFlagMapped)
	return 0
}

func (c *camera) dqbuf(ctx context.Context, h *handle, a arg) syscall.Errno {
	if !isMmapCapture(a, bufferType, bufferMemory) {
		return syscall.EINVAL
	}
	f, errno := c.dequeue(ctx, h)
	if errno != 0 {
		return errno
	}
	c.putBuffer(a, uint32(f.index), f.flags)
	a.put32(bufferBytesused, uint32(f.used))
	a.put32(bufferField, fieldNone)
	a.put32(bufferSequence, f.sequence)
	a.put64(bufferSeconds, uint64(f.at.Sec))
	a.put64(bufferMicros, uint64(f.at.Nsec/1000))
	return 0
}

// putBuffer describes a buffer: where to map it and how long it is.
func (c *camera) putBuffer(a arg, index, flags uint32) {
	clear(a)
	a.put32(bufferIndex, index)
	a.put32(bufferType, bufTypeVideoCapture)
	a.put32(bufferFlags, flags)
	a.put32(bufferMemory, memoryMmap)
	a.put32(bufferOffset, index*uint32(c.bufferLen))
	a.put32(bufferLength, uint32(c.bufferLen))
}
