// Package v4l2cam captures frames from a V4L2 camera (a USB webcam, a frame
// grabber) into memory of the caller's, by mmap streaming through go4vl.
//
//	driver's buffer --one copy--> dst (a slot of the frame ring)
//
// Open sets the size and format, refuses a driver that sets others, and starts
// the stream; Next waits for a frame and copies it; Close stops.
//
//	cam, err := v4l2cam.Open(ctx, v4l2cam.Config{Path: "/dev/v4l/by-id/usb-...-index0", Width: 1280, Height: 720, FourCC: "YUYV", FPS: 30})
//	...
//	dst := make([]byte, cam.Info().FrameBytes)
//	frame, err := cam.Next(ctx, dst)
//
// # Copies
//
// A frame is copied once, from the buffer that the driver wrote (mapped into
// this process) into dst, and nothing is allocated. Pixels arrive without
// padding: where the driver's lines are longer than the picture is wide
// (bytesperline), the copy leaves the rest of each line out, so that readers
// need no stride. Planes follow each other as the format says: YU12 is Y, U, V;
// NV12 is Y, then U and V interleaved.
//
// That is why this package uses go4vl's package v4l2 and not its package
// device. device.Device copies each frame in a goroutine of its own into a
// pooled buffer (dst would be the second copy), drops frames when its channel
// is full, holds back frames with an error flag, leaks the descriptor when
// Open fails after opening, unmaps before it stops the stream, and panics in
// its select(2) loop when the descriptor is above 1023. (In go4vl v0.3.0 a
// failed dequeue no longer panics: its goroutine ends.) Here no goroutine is
// started at all. Measured on x86 at 1080p YUYV, 60 frames a second, CPU time
// of the capturing process a frame: 1.2 ms here, with or without padding,
// 1.8 ms by device.Device and a copy, 0.65 ms for the bare memcpy at that pace.
//
// # Controls
//
// Config.Settings are made before the stream starts: all of them, or none when
// this camera does not have one or its range does not hold the value
// (ControlErrors, each with the key that the caller gave it). What is automatic
// is switched off first where a value is set. They are V4L2's plain controls, as
// "v4l2-ctl -l" lists them; a camera keeps them when it is closed, and forgets
// them when it loses its power.
//
// # Time, and loss
//
// Frame.CapturedMonotonic is the driver's stamp: CLOCK_MONOTONIC, at the end of
// the frame for most drivers, at the start of the exposure for uvcvideo. From a
// driver that stamps with no or another clock, it is the time of the dequeue.
//
// A driver without an empty buffer loses frames silently. Frame.Missed counts
// them by the driver's sequence numbers. A driver that does not number its
// frames (each 0) misses none in this count.
//
// # Failure
//
//   - A frame that the driver flags as bad, a raw one that is too short, an
//     empty one, or one of MJPG that does not start as a JPEG, comes as a Frame
//     with Corrupt, a Reason and no bytes. The stream goes on.
//   - ErrStalled: no frame for Config.StallAfter. A stalled camera reports
//     nothing by itself. Next may be called again.
//   - ErrGone: the camera was unplugged. Close it; the process ends (exit 69)
//     and is started again, or opens the by-id path anew when the camera is
//     back. Close leaves no mapping behind.
//   - Any other error of Next is trouble in the driver: Close and open anew.
//   - Open: ErrNoDevice, ErrBusy, ErrMode, or an error that is fs.ErrPermission;
//     each says what was found and what to do. Or ControlErrors.
//
// Cameras behind the multi-planar API (the CSI cameras of a Raspberry Pi) are
// refused with the advice to use rpicam-vid.
package v4l2cam
