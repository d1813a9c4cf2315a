package ffmpeg

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where a sandbox has no vmsplice(2), what would be lent is copied.
func TestFeedWithoutVmsplice(t *testing.T) {
	p := start(t, Command{Argv: []string{"cat"}, Stdin: true, Stdout: true, Lend: true})
	part := bytes.Repeat([]byte("0123456"), 700_000)
	if !p.Lends(len(part)) {
		t.Fatalf("Lends(%d) = false; want true", len(part))
	}
	read := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(p.Stdout) // what is missing shows
		read <- got
	}()
	fed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := forbid(unix.SYS_VMSPLICE); err != nil {
			fed <- err
			return
		}
		fed <- p.Feed([][]byte{{7}, part, part}, 10*time.Second, func() {})
	}()
	if err := <-fed; err != nil {
		t.Fatalf("Feed = %v; want nil", err)
	}
	if p.Lends(len(part)) {
		t.Errorf("Lends(%d) = true after it was found to be impossible; want false", len(part))
	}
	if err := p.EndInput(); err != nil {
		t.Fatal(err)
	}
	if got, want := <-read, append([]byte{7}, bytes.Repeat(part, 2)...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived that are not the %d that were fed", len(got), len(want))
	}
}

// forbid lets a system call fail on this thread as if the kernel had none
// (seccomp(2), a filter of four instructions).
func forbid(call uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number is what seccomp_data begins with
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
