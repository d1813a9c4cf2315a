package fakev4l2

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// parentEnv makes the test binary a test process that starts a camera and
// waits to be killed.
const parentEnv = "PERCH_FAKEV4L2_PARENT"

func TestMain(m *testing.M) {
	switch {
	case IsChild():
		os.Exit(Main())
	case os.Getenv(parentEnv) != "":
		os.Exit(holdCamera())
	}
	goleak.VerifyTestMain(m)
}

func holdCamera() int {
	dev, err := Start(context.Background(), tiny)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(dev.dir, dev.child.Process.Pid)
	select {}
}

const deadline = 2 * time.Minute

func needCamera(t *testing.T) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
}

func plugIn(t *testing.T, cfg Config) *Device {
	t.Helper()
	needCamera(t)
	dev, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

// awaitGone waits until neither the folder nor a mount of it is left.
func awaitGone(t *testing.T, dir string) {
	t.Helper()
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); {
		if _, err = os.Lstat(dir); os.IsNotExist(err) {
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil || strings.Contains(string(mounts), dir) {
				t.Errorf("%s is still mounted (%v)", dir, err)
			}
			return
		}
	}
	t.Errorf("Lstat(%s) = %v after %v; want it gone", dir, err, deadline)
}

func TestFFmpegStreams(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		args []string
	}{
		{Config{Width: 64, Height: 48, FourCC: "YUYV", FPS: 50}, []string{"-input_format", "yuyv422", "-pix_fmt", "yuyv422"}},
		{Config{Width: 64, Height: 48, FourCC: "YU12", FPS: 50}, []string{"-input_format", "yuv420p", "-pix_fmt", "yuv420p"}},
		{Config{Width: 64, Height: 48, FourCC: "NV12", FPS: 50}, []string{"-input_format", "nv12", "-pix_fmt", "nv12"}},
	} {
		t.Run(c.cfg.FourCC, func(t *testing.T) {
			needCamera(t)
			ffmpeg, err := exec.LookPath("ffmpeg")
			if err != nil {
				t.Skip(err)
			}
			dev := plugIn(t, c.cfg)
			const frames = 10
			out, err := exec.Command(ffmpeg, "-v", "error", "-nostdin", "-f", "v4l2", c.args[0], c.args[1],
				"-video_size", "64x48", "-framerate", "50", "-i", dev.ByID(), "-frames:v", fmt.Sprint(frames),
				"-fps_mode", "passthrough", c.args[2], c.args[3], "-f", "rawvideo", "-").Output()
			if err != nil {
				t.Fatalf("ffmpeg: %v: %s", err, stderrOf(err))
			}
			size := len(out) / frames
			for i := range frames {
				if seq, err := Check(out[i*size:][:size]); err != nil {
					t.Errorf("frame %d of ffmpeg's output: number %d, %v", i, seq, err)
				}
			}
		})
	}
}

func stderrOf(err error) []byte {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}

func TestIdentityFollowsThePlug(t *testing.T) {
	dev := plugIn(t, tiny)
	if got, err := filepath.EvalSymlinks(dev.ByID()); got != dev.Path() || err != nil {
		t.Errorf("EvalSymlinks(%s) = %s, %v; want %s", dev.ByID(), got, err, dev.Path())
	}
	if err := dev.Unplug(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dev.ByID(), dev.Path()} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("Lstat(%s) while unplugged = %v; want it not to exist", path, err)
		}
	}
	if err := dev.Stall(); err == nil {
		t.Error("Stall() while unplugged = nil; want an error")
	}
	if err := dev.Replug("video3"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(dev.ByID()); got != "../video3" || err != nil {
		t.Errorf("Readlink(%s) = %s, %v; want ../video3", dev.ByID(), got, err)
	}
	if _, err := os.Stat(dev.Path()); err != nil {
		t.Errorf("Stat(%s) = %v", dev.Path(), err)
	}
}

func TestCloseLeavesNothingWhileTheDeviceIsOpen(t *testing.T) {
	dev := plugIn(t, tiny)
	file, err := os.OpenFile(dev.Path(), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := dev.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	awaitGone(t, dev.dir)
	if err := dev.Stall(); err == nil {
		t.Error("Stall() after Close() = nil; want an error")
	}
}

func TestKilledCameraIsCleanedUpByClose(t *testing.T) {
	needCamera(t)
	dev, err := Start(t.Context(), tiny)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Close() of a killed camera = %v; want that it was killed", err)
	}
	awaitGone(t, dev.dir)
}

// startParent starts a test process of its own that holds a camera, and
// returns where, and the camera's process.
func startParent(t *testing.T) (parent *exec.Cmd, dir string, camera int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent = exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, scanErr := fmt.Sscan(line, &dir, &camera); err != nil || scanErr != nil {
		parent.Process.Kill()
		parent.Wait()
		t.Fatalf("the test process said %q: %v, %v", line, err, scanErr)
	}
	return parent, dir, camera
}

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	needCamera(t)
	parent, dir, _ := startParent(t)
	if _, err := os.Stat(filepath.Join(dir, firstName)); err != nil {
		t.Errorf("Stat() before the kill = %v", err)
	}
	parent.Process.Kill()
	parent.Wait()
	awaitGone(t, dir)
}

func TestStartSweepsUpAfterAKilledPair(t *testing.T) {
	needCamera(t)
	parent, dir, camera := startParent(t)
	if err := syscall.Kill(camera, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	parent.Process.Kill()
	parent.Wait()
	plugIn(t, tiny)
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); sweep() { // the kernel may take a moment to cut the connection
		if _, err = os.Lstat(dir); os.IsNotExist(err) {
			break
		}
	}
	awaitGone(t, dir)
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	needCamera(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if dev, err := Start(ctx, tiny); err == nil {
		dev.Close()
		t.Error("Start(cancelled) = nil; want an error")
	}
}

func TestStartRefusesABadConfig(t *testing.T) {
	needCamera(t)
	bad := tiny
	bad.Width = 0
	if dev, err := Start(t.Context(), bad); err == nil {
		dev.Close()
		t.Error("Start(width 0) = nil; want an error")
	}
}

func TestServeRefusesBadOrders(t *testing.T) {
	if err := serve("nonsense", strings.NewReader(""), io.Discard); err == nil {
		t.Error(`serve("nonsense") = nil; want an error`)
	}
}
