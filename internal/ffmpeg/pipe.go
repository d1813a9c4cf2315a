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

// enlarge makes a pipe as large as it may be. One that stays small costs more
// wake-ups, nothing else.
func enlarge(pipe *os.File) {
	conn, err := pipe.SyscallConn() // and not Fd, which would end its deadlines
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		if _, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, wantPipe); err != nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, mostPipe())
		}
	})
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
