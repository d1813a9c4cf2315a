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
func (p *Process) Feed(parts [][]byte, patience time.Duration, alive func()) error {
	conn, err := p.Stdin.SyscallConn()
	if err != nil {
		return fmt.Errorf("feed %s: %w", p.name, err)
	}
	for waited := time.Duration(0); len(parts) > 0; {
		if err := p.Stdin.SetWriteDeadline(time.Now().Add(feedStep)); err != nil {
			return fmt.Errorf("feed %s: %w", p.name, err)
		}
		n, err := writev(conn.Write, parts)
		if parts = rest(parts, n); n > 0 {
			waited = 0
		}
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

// writev writes some of the parts, waiting for room in the pipe if there is none.
func writev(whenWritable func(func(fd uintptr) bool) error, parts [][]byte) (n int, err error) {
	const most = 1024 // IOV_MAX, limits.h
	waitErr := whenWritable(func(fd uintptr) bool {
		for {
			n, err = unix.Writev(int(fd), parts[:min(len(parts), most)])
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
