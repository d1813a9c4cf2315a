package ffmpeg

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Grey is a grey picture of 640x480, again and again, to try an encoder with.
func Grey() Input {
	return Input{args: []string{"-f", "lavfi", "-i", "color=color=gray:size=640x480:rate=30"}, shown: "a grey picture"}
}

// Piped is a video in Matroska on the child's standard input (Command.Stdin),
// used at once: it is believed what its header says.
func Piped() Input {
	return Input{args: []string{"-threads", "1", "-probesize", "32", "-analyzeduration", "0", "-fpsprobesize", "0", "-f", "matroska", "-i", "pipe:0"},
		shown: "standard input"}
}

// feedStep is how long a write may wait before alive is called.
const feedStep = 250 * time.Millisecond

// Feed writes the parts one after the other to the child's standard input with
// writev(2), straight from where they are. It fails when the child takes no byte
// for as long as patience (os.ErrDeadlineExceeded), and when it is gone (EPIPE);
// after a failure it is not known what the child has. alive is called while
// it waits.
//
// With Command.Lend a part that is larger than the pipe is not copied into it,
// but its pages are lent (vmsplice(2)): the child reads them where they are.
// Such a part must stay as it is until the next such one has been fed whole,
// which then fills the pipe, or until the child is gone. Where the kernel or a
// sandbox has no vmsplice(2), parts are copied, and Lends says so.
func (p *Process) Feed(parts [][]byte, patience time.Duration, alive func()) error {
	conn, err := p.Stdin.SyscallConn()
	if err != nil {
		return fmt.Errorf("feed %s: %w", p.name, err)
	}
	for waited, lent := time.Duration(0), false; len(parts) > 0; {
		if err := p.Stdin.SetWriteDeadline(time.Now().Add(feedStep)); err != nil {
			return fmt.Errorf("feed %s: %w", p.name, err)
		}
		lent = lent || p.Lends(len(parts[0]))
		n, err := p.put(conn.Write, parts, lent)
		if lent && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)) {
			p.lend, lent = 0, false
			continue
		}
		left := len(parts)
		if parts = rest(parts, n); n > 0 {
			waited = 0
		}
		lent = lent && len(parts) == left // the whole of a part is lent, its end too
		if err == nil {
			continue
		}
		if waited += feedStep; !errors.Is(err, os.ErrDeadlineExceeded) || waited >= patience {
			return fmt.Errorf("feed %s: %w", p.name, err)
		}
		alive()
	}
	return nil
}

// Lends says whether Feed lends a part of that many bytes.
func (p *Process) Lends(bytes int) bool { return p.lend > 0 && bytes >= p.lend }

// put lends some of the first part, or writes some of those before the next one
// that is to be lent, waiting for room in the pipe if there is none.
func (p *Process) put(whenWritable func(func(fd uintptr) bool) error, parts [][]byte, lent bool) (n int, err error) {
	const most = 1024 // IOV_MAX, limits.h
	count := 1
	for !lent && count < min(len(parts), most) && !p.Lends(len(parts[count])) {
		count++
	}
	waitErr := whenWritable(func(fd uintptr) bool {
		for {
			if lent {
				pages := unix.Iovec{Base: &parts[0][0]}
				pages.SetLen(len(parts[0]))
				n, err = unix.Vmsplice(int(fd), []unix.Iovec{pages}, unix.SPLICE_F_NONBLOCK)
			} else {
				n, err = unix.Writev(int(fd), parts[:count])
			}
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(n, 0), err
}

// rest is what is left of the parts after n bytes.
func rest(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if n > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

// EndInput closes the child's standard input: nothing more will come.
func (p *Process) EndInput() error { return p.Stdin.Close() }
