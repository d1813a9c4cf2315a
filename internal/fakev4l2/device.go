package fakev4l2

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Available says why there can be no fake camera here, or nil if there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a fake camera needs root, to mount a FUSE file system")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("ask for capabilities: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errors.New("a fake camera needs the capability CAP_SYS_ADMIN, to mount a FUSE file system")
	}
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("a fake camera needs FUSE: %w", err)
	}
	return fuse.Close()
}

const (
	dirPattern  = "perch-fakev4l2-*"
	answerLimit = 10 * time.Second // a command is answered in well under a second
)

// A Device is a fake camera in a process of its own. Its methods may be called
// from any goroutine; each returns when the camera has obeyed.
type Device struct {
	dir   string
	child *exec.Cmd

	mu       sync.Mutex // one command at a time
	commands io.WriteCloser
	pipe     *os.File // the answers
	answers  *bufio.Reader
	name     string
	closed   bool
}

// Start plugs in a camera at a new path. ctx bounds the start only: the camera
// stays until Close. The test binary must have the TestMain of the package
// comment.
func Start(ctx context.Context, cfg Config) (*Device, error) {
	if err := errors.Join(Available(), cfg.validate()); err != nil {
		return nil, err
	}
	if IsChild() {
		return nil, errors.New("start fake camera: this is the camera's own process: TestMain must end with Main when IsChild")
	}
	sweep()
	dir, err := os.MkdirTemp("", dirPattern)
	if err != nil {
		return nil, fmt.Errorf("start fake camera: %w", err)
	}
	d := &Device{dir: dir, name: firstName}
	if err := d.spawn(orders{Dir: dir, Config: cfg}); err != nil {
		return nil, errors.Join(fmt.Errorf("start fake camera: %w", err), os.Remove(dir))
	}
	if err := d.awaitFirst(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start fake camera: %w", err), d.Close())
	}
	return d, nil
}

// awaitFirst waits for the answer that says the camera is there.
func (d *Device) awaitFirst(ctx context.Context) error {
	if err := d.pipe.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	release := context.AfterFunc(ctx, func() { _ = d.pipe.SetReadDeadline(time.Now()) })
	_, err := d.answer()
	if !release() {
		return ctx.Err()
	}
	return err
}

// spawn executes this program again as the camera. It has a process group of
// its own, so that an interrupt from the terminal does not end it before it
// has unmounted.
func (d *Device) spawn(o orders) error {
	env, err := json.Marshal(o)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	answers, childEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childEnd.Close()
	d.child = exec.Command(self)
	d.child.Env = append(os.Environ(), childEnv+"="+string(env),
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // a child built with -race would take a second to end
	d.child.Stderr = os.Stderr
	d.child.ExtraFiles = []*os.File{childEnd} // answerFD
	d.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.commands, err = d.child.StdinPipe(); err != nil {
		return errors.Join(err, answers.Close())
	}
	if err := d.child.Start(); err != nil {
		return errors.Join(err, answers.Close(), d.commands.Close())
	}
	d.pipe, d.answers = answers, bufio.NewReader(answers)
	return nil
}

// sweep unmounts what a camera and its test left that were killed together.
func sweep() {
	stale, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPattern)) // the pattern is well-formed
	for _, dir := range stale {
		if _, err := os.Stat(dir); errors.Is(err, syscall.ENOTCONN) {
			if unmountLazily(dir) == nil {
				_ = os.Remove(dir) // the next sweep tries again
			}
		}
	}
}

// answer reads one answer, until the pipe's deadline.
func (d *Device) answer() (answer, error) {
	line, err := d.answers.ReadBytes('\n')
	if err != nil {
		return answer{}, fmt.Errorf("wait for the camera's answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("read the camera's answer: %w", err)
	}
	if a.Error != "" {
		return answer{}, fmt.Errorf("fake camera: %s", a.Error)
	}
	return a, nil
}

// order sends a command and returns the answer.
func (d *Device) order(cmd command) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return answer{}, fmt.Errorf("%s: the fake camera is closed", cmd.Verb)
	}
	line, err := json.Marshal(cmd)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", cmd.Verb, err)
	}
	if _, err := d.commands.Write(append(line, '\n')); err != nil {
		return answer{}, fmt.Errorf("%s: %w", cmd.Verb, err)
	}
	if err := d.pipe.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return answer{}, fmt.Errorf("%s: %w", cmd.Verb, err)
	}
	return d.answer()
}

func (d *Device) tell(cmd command) error {
	_, err := d.order(cmd)
	return err
}

// Path is the camera's device file; another one after Replug.
func (d *Device) Path() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return filepath.Join(d.dir, d.name)
}

// ByID is the camera's identity: a symbolic link to wherever it is plugged in.
func (d *Device) ByID() string { return filepath.Join(d.dir, byIDFolder, byIDName) }

// Skip loses n frames before the next one: a gap in the sequence numbers.
func (d *Device) Skip(n uint32) error { return d.tell(command{Verb: verbSkip, Count: n}) }

// Corrupt flags the next frame with V4L2_BUF_FLAG_ERROR.
func (d *Device) Corrupt() error { return d.tell(command{Verb: verbCorrupt}) }

// Truncate makes the next frame say that only its first n bytes were written.
func (d *Device) Truncate(n int) error {
	return d.tell(command{Verb: verbTruncate, Count: uint32(n)})
}

// Stall silences the camera: no further frame is captured, and no error given.
// Frames that wait in buffers can still be had.
func (d *Device) Stall() error { return d.tell(command{Verb: verbStall}) }

// Resume ends a Stall.
func (d *Device) Resume() error { return d.tell(command{Verb: verbResume}) }

// SetFPS changes the pace to fps frames a second.
func (d *Device) SetFPS(fps float64) error { return d.tell(command{Verb: verbSetFPS, FPS: fps}) }

// Unplug takes Path and ByID away; who has the device open gets ENODEV.
func (d *Device) Unplug() error { return d.tell(command{Verb: verbUnplug}) }

// Replug plugs the camera in again after Unplug, as device file name
// ("video1"): ByID is back and leads there.
func (d *Device) Replug(name string) error {
	if err := d.tell(command{Verb: verbReplug, Name: name}); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.name = name
	return nil
}

// Stats asks the camera what it has done since it was plugged in.
func (d *Device) Stats() (Stats, error) {
	a, err := d.order(command{Verb: verbStats})
	return a.Stats, err
}

// Control asks what the control of that id is set to.
func (d *Device) Control(id uint32) (int32, error) {
	a, err := d.order(command{Verb: verbControl, ID: id})
	return a.Value, err
}

// Close unmounts the camera, waits for its process, and leaves nothing. A
// second Close does nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := d.commands.Close()
	overdue := time.AfterFunc(answerLimit, func() { _ = d.child.Process.Kill() })
	err = errors.Join(err, d.child.Wait(), d.pipe.Close())
	overdue.Stop()
	if _, gone := os.Lstat(d.dir); gone == nil || errors.Is(gone, syscall.ENOTCONN) {
		err = errors.Join(err, unmountLazily(d.dir), os.Remove(d.dir))
	}
	if err != nil {
		return fmt.Errorf("close fake camera: %w", err)
	}
	return nil
}
