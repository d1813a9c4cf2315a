package v4l2cam

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vladimirvivien/go4vl/v4l2"
	"golang.org/x/sys/unix"
)

func TestValidateReportsEverything(t *testing.T) {
	good := Config{Path: "/dev/video0", Width: 640, Height: 480, FourCC: "YU12"}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v.Validate() = %v; want nil", good, err)
	}
	bad := Config{Width: -1, Height: 480, FourCC: "YUV9", FPS: -1, Buffers: 1, StallAfter: -1}
	err := bad.Validate()
	if err == nil {
		t.Fatalf("%+v.Validate() = nil; want errors", bad)
	}
	for _, want := range []string{"path", "size -1x480", `format "YUV9"; want one of YU12, NV12`, "fps -1", "buffers 1", "stall after"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v; want it to say %q", err, want)
		}
	}
	odd := good
	odd.Width = 641
	if odd.Validate() == nil {
		t.Errorf("%+v.Validate() = nil; want an error: YU12 has no odd sizes", odd)
	}
	for _, format := range []string{"RGB3", "MJPG"} {
		odd.FourCC = format
		if err := odd.Validate(); err != nil {
			t.Errorf("%+v.Validate() = %v; want nil", odd, err)
		}
	}
}

func TestOpenSaysWhichCamerasAreThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "by-id")
	must(t, os.MkdirAll(dir, 0o700))
	target := filepath.Join(t.TempDir(), "video4")
	must(t, os.WriteFile(target, nil, 0o600))
	for _, name := range []string{"usb-Acme_Cam_1234-index0", "usb-Other-index0"} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	cfg := Config{Path: filepath.Join(dir, "usb-Acme_Cam_9-index0"), Width: 640, Height: 480, FourCC: "YUYV"}
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, ErrNoDevice) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open(%s) = %v; want %v", cfg.Path, err, ErrNoDevice)
	}
	for _, want := range []string{
		"nearest is " + filepath.Join(dir, "usb-Acme_Cam_1234-index0"),
		filepath.Join(dir, "usb-Other-index0") + " (" + target + ")",
		"v4l2-ctl --list-devices",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v; want it to say %q", cfg.Path, err, want)
		}
	}
}

func TestOpenRefusesWhatIsNoCamera(t *testing.T) {
	for _, path := range []string{"/dev/null", filepath.Join(t.TempDir(), "file")} {
		if path != "/dev/null" {
			must(t, os.WriteFile(path, nil, 0o600))
		}
		_, err := Open(t.Context(), Config{Path: path, Width: 640, Height: 480, FourCC: "YUYV"})
		if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "not a V4L2 device") {
			t.Errorf("Open(%s) = %v; want %v: not a V4L2 device", path, err, ErrNoDevice)
		}
	}
}

func TestDeniedNamesTheGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "video0")
	must(t, os.WriteFile(path, nil, 0o660))
	denied := &fs.PathError{Op: "open", Path: path, Err: unix.EACCES}
	err := explainDenied(path, denied)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "usermod -aG") {
		t.Errorf("explainDenied() = %v; want %v with the group to join", err, fs.ErrPermission)
	}
}

func TestBusyNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "video0")
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	holder := exec.Command("sleep", "60")
	holder.Stdin = file
	if err := holder.Start(); err != nil {
		t.Skip(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	want := "sleep (pid " + strconv.Itoa(holder.Process.Pid) + ")"
	var found []string
	for end := time.Now().Add(deadline); time.Now().Before(end); { // until it has become sleep
		if found = holders(path); strings.Join(found, ", ") == want {
			break
		}
	}
	if diff := cmp.Diff([]string{want}, found); diff != "" {
		t.Errorf("holders() (-want +got):\n%s", diff)
	}
	if err := explainBusy(path, unix.EBUSY); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), want) {
		t.Errorf("explainBusy() = %v; want %v by %s", err, ErrBusy, want)
	}
}

func TestMissed(t *testing.T) {
	type step struct{ sequence, want uint32 }
	for _, steps := range [][]step{
		{{7, 0}, {8, 0}, {12, 3}, {13, 0}},
		{{0xfffffffe, 0}, {1, 2}, {2, 0}}, // wraps around
		{{0, 0}, {0, 0}, {0, 0}},          // a driver that does not number
		{{50, 0}, {0, 0}, {1, 0}, {3, 1}}, // a driver that starts over
	} {
		var c Camera
		for i, s := range steps {
			if got := c.missed(s.sequence); got != s.want {
				t.Errorf("%v: missed(%d) at step %d = %d; want %d", steps, s.sequence, i, got, s.want)
			}
		}
	}
}

func TestCapturedDoesNotTrustOtherClocks(t *testing.T) {
	now := captured(v4l2.Buffer{})
	at := func(d time.Duration) unix.Timeval { return unix.NsecToTimeval(int64(d)) }
	earlier := (now - time.Millisecond).Truncate(time.Microsecond)
	for _, c := range []struct {
		name   string
		buffer v4l2.Buffer
		exact  bool
	}{
		{"monotonic", v4l2.Buffer{Flags: v4l2.BufFlagTimestampMonotonic, Timestamp: at(earlier)}, true},
		{"unknown clock", v4l2.Buffer{Timestamp: at(earlier)}, false},
		{"wall clock said to be monotonic", v4l2.Buffer{Flags: v4l2.BufFlagTimestampMonotonic, Timestamp: at(time.Duration(time.Now().UnixNano()))}, false},
		{"no time", v4l2.Buffer{Flags: v4l2.BufFlagTimestampMonotonic}, false},
	} {
		got := captured(c.buffer)
		if c.exact && got != earlier || !c.exact && (got < now || got > now+deadline) {
			t.Errorf("%s: captured() = %v; want %v if exact (%v), else now, %v", c.name, got, earlier, c.exact, now)
		}
	}
}

func TestInterval(t *testing.T) {
	for fps, want := range map[float64]v4l2.Fract{
		30:    {Numerator: 1, Denominator: 30},
		29.97: {Numerator: 100, Denominator: 2997},
		7.5:   {Numerator: 10, Denominator: 75},
		0.2:   {Numerator: 10, Denominator: 2},
		1e-9:  {Numerator: 1, Denominator: 1},
	} {
		if got := interval(fps); got != want {
			t.Errorf("interval(%v) = %v; want %v", fps, got, want)
		}
	}
}
