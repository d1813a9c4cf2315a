package fakev4l2

import (
	"syscall"
	"testing"
)

// ask sends a request about a control to a camera, as the kernel hands it over.
func ask(t *testing.T, c *camera, request uint32, size int, words map[int]uint32) (arg, syscall.Errno) {
	a := make(arg, size)
	for at, w := range words {
		a.put32(at, w)
	}
	return a, c.ioctl(t.Context(), nil, request, a)
}

func webcam(t *testing.T, controls []Control) *camera {
	t.Helper()
	cfg := tiny
	cfg.Controls = controls
	c, err := newCamera(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestControlsAreListedInOrder(t *testing.T) {
	c := webcam(t, Webcam())
	id, n := uint32(ctrlFlagNext), 0
	for ; ; n++ {
		a, errno := ask(t, c, vidiocQueryctrl, sizeofQueryctrl, map[int]uint32{queryctrlID: id})
		if errno != 0 {
			if errno != syscall.EINVAL {
				t.Errorf("QUERYCTRL after the last one = %v; want EINVAL", errno)
			}
			break
		}
		if got := a.u32(queryctrlID); got <= id&^ctrlFlagNext {
			t.Fatalf("QUERYCTRL after %#x = %#x; want a greater one", id, got)
		}
		id = a.u32(queryctrlID) | ctrlFlagNext
	}
	if n != len(Webcam()) {
		t.Errorf("%d controls are listed; want %d", n, len(Webcam()))
	}
}

func TestControlsRefuseWhatADriverRefuses(t *testing.T) {
	const gain, exposure, absolute = 0x00980913, 0x009a0901, 0x009a0902
	c := webcam(t, append(Webcam(), Control{ID: 7, Type: Integer, Minimum: -9, Maximum: 9, Grain: 4}))
	for _, test := range []struct {
		id    uint32
		value int32
		want  syscall.Errno
		is    int32
	}{
		{gain, 40, 0, 40},
		{gain, 101, syscall.ERANGE, 40},
		{gain, -1, syscall.ERANGE, 40},
		{absolute, 100, syscall.EACCES, 250}, // the exposure is automatic
		{exposure, 2, syscall.EINVAL, 3},     // no item of the menu
		{exposure, 1, 0, 1},
		{absolute, 100, 0, 100},
		{7, 7, 0, 4},
	} {
		_, errno := ask(t, c, vidiocSCtrl, sizeofControl, map[int]uint32{0: test.id, controlValue: uint32(test.value)})
		if is, err := c.value(test.id); errno != test.want || is != test.is || err != nil {
			t.Errorf("S_CTRL(%#x, %d) = %v, and it is %d, %v; want %v, %d", test.id, test.value, errno, is, err, test.want, test.is)
		}
	}
	if _, errno := ask(t, c, vidiocGCtrl, sizeofControl, map[int]uint32{0: 5}); errno != syscall.EINVAL {
		t.Errorf("G_CTRL of no control = %v; want EINVAL", errno)
	}
	if _, err := c.value(5); err == nil {
		t.Error("value of no control = nil; want an error")
	}
	if _, errno := ask(t, webcam(t, nil), vidiocQueryctrl, sizeofQueryctrl, nil); errno != syscall.ENOTTY {
		t.Errorf("QUERYCTRL of a camera without controls = %v; want ENOTTY", errno)
	}
}

func TestBadControlsAreRefused(t *testing.T) {
	for name, bad := range map[string][]Control{
		"twice":                {{ID: 1}, {ID: 1}},
		"no id":                {{}},
		"default out of range": {{ID: 1, Maximum: 3, Default: 4}},
	} {
		cfg := tiny
		cfg.Controls = bad
		if _, err := newCamera(cfg); err == nil {
			t.Errorf("newCamera(%s) = nil; want an error", name)
		}
	}
}

// A test asks the camera itself, and not by the ioctl that it tests.
func TestControlIsTold(t *testing.T) {
	cfg := tiny
	cfg.Controls = Webcam()
	dev := plugIn(t, cfg)
	if got, err := dev.Control(0x00980913); got != 20 || err != nil {
		t.Errorf("Control(gain) = %d, %v; want its default, 20", got, err)
	}
	if _, err := dev.Control(1); err == nil {
		t.Error("Control(none) = nil; want an error")
	}
}
