package ffmpeg

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wantPipe is enough for a third of a 1080p picture, and what users other than
// root may have by default (pipe(7), /proc/sys/fs/pipe-max-size).
const wantPipe = 1 << 20

// resize makes a pipe as large as it may be, or as that many bytes need, in whole
// pages, and returns its size. One that is small costs more wake-ups, nothing
// else.
func resize(pipe *os.File, bytes int) (size int) {
	conn, err := pipe.SyscallConn() // and not Fd, which would end its deadlines
	if err != nil {
		return wantPipe
	}
	_ = conn.Control(func(fd uintptr) {
		want := wantPipe
		if bytes > 0 {
			want = min(want, bytes)
		}
		if _, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, want); err != nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, mostPipe())
		}
		if size, err = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err != nil {
			size = wantPipe
		}
	})
	return size
}

// mostPipe is what an administrator allows, where that is less than we want.
func mostPipe() int {
	text, err := os.ReadFile("/proc/sys/fs/pipe-max-size")
	if err != nil {
		return wantPipe
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return wantPipe
	}
	return min(most, wantPipe)
}
