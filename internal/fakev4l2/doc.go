// Package fakev4l2 is a V4L2 camera in user space, for tests of programs that
// capture from one. No kernel module and no hardware is needed, only root and
// /dev/fuse (Available says what is missing).
//
//	test --Device--> child process --FUSE--> <tmp>/video0 <--ioctl, mmap-- the program under test
//	                                         <tmp>/by-id/usb-perch_fake-index0 -> ../video0
//
// The device is a FUSE file. Its ioctls are answered by the child, and its
// buffers are the page cache of the file: a frame is stored there before the
// DQBUF that announces it returns, so that a reader's shared mapping shows it.
// The frames are numbered and patterned (Fill), so that Check can verify every
// byte of what arrives at the far end.
//
// The child is the test binary itself, executed again. A test package that
// wants a camera starts like this:
//
//	func TestMain(m *testing.M) {
//		if fakev4l2.IsChild() {
//			os.Exit(fakev4l2.Main())
//		}
//		os.Exit(m.Run())
//	}
//
// Start then gives a Device, whose methods make the camera misbehave: lose
// frames, flag them as bad, cut them short, fall silent, be unplugged and come
// back at another path under the same identity.
//
// # What it does as a driver does
//
// It captures at its own pace into the queued buffers, loses frames (a gap in
// the sequence) when none is queued, keeps its own size and format whatever
// S_FMT asks for, takes the frame rate from S_PARM, and values of its Controls
// by S_CTRL where they are in range and not automatic, gives its buffers to one
// file descriptor (EBUSY for a second one), stops when that one is closed, and
// answers everything with ENODEV once unplugged.
//
// # What it cannot do
//
//   - poll(2) always says "ready": go-fuse refuses FUSE_POLL. So that readers
//     do not spin, DQBUF on a non-blocking descriptor waits up to 20 ms for a
//     frame before it answers EAGAIN.
//   - A control keeps its value, and the pictures stay as they are.
//   - ioctls whose argument holds pointers (extended controls, the multi-planar
//     API): FUSE copies only the argument itself. They get ENOTTY.
//   - The device is a regular file for stat(2).
//   - Structures are those of 64-bit Linux, little-endian.
//
// # How it fails, and what it leaves
//
// Device.Close unmounts and reaps the child; it returns an error if the child
// had failed. A test process that is killed leaves nothing either: the child
// sees the end of its standard input, unmounts and exits. If the child itself
// is killed, Close cleans up after it, and Start after a pair killed together.
package fakev4l2
