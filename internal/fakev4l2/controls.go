package fakev4l2

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// Control is a control of the camera: a number that can be set, and changes
// nothing in the pictures.
type Control struct {
	ID      uint32 // V4L2_CID_... of linux/v4l2-controls.h
	Type    ControlType
	Name    string // for people, 31 bytes at most
	Minimum int32
	Maximum int32
	Step    int32
	Default int32
	Menu    map[int32]string // the items that a menu has; the numbers between them are refused

	// Auto names the control that has to be Manual before this one can be set,
	// as an automatic exposure has to be off: EACCES until then. 0 is none.
	Auto   uint32
	Manual int32
	// Grain is what the hardware rounds down to, and does not tell; 0 is 1.
	Grain int32
}

// ControlType is V4L2's number of what a control's values are.
type ControlType uint32

// The types that plain integers have.
const (
	Integer ControlType = 1
	Boolean ControlType = 2
	Menu    ControlType = 3
	Button  ControlType = 4
)

// Webcam lists the controls that a USB camera has, with the names that
// uvcvideo gives them.
func Webcam() []Control {
	const (
		user         = 0x00980900 // V4L2_CID_BASE
		camera       = 0x009a0900 // V4L2_CID_CAMERA_CLASS_BASE
		whiteBalance = user + 12
		exposure     = camera + 1
	)
	return []Control{
		{ID: user, Type: Integer, Name: "Brightness", Minimum: -64, Maximum: 64, Step: 1},
		{ID: whiteBalance, Type: Boolean, Name: "White Balance, Automatic", Maximum: 1, Step: 1, Default: 1},
		{ID: user + 19, Type: Integer, Name: "Gain", Maximum: 100, Step: 5, Default: 20},
		{ID: user + 20, Type: Boolean, Name: "Horizontal Flip", Maximum: 1, Step: 1},
		{ID: user + 21, Type: Boolean, Name: "Vertical Flip", Maximum: 1, Step: 1},
		{ID: user + 24, Type: Menu, Name: "Power Line Frequency", Maximum: 2, Default: 1,
			Menu: map[int32]string{0: "Disabled", 1: "50 Hz", 2: "60 Hz"}},
		{ID: user + 26, Type: Integer, Name: "White Balance Temperature", Minimum: 2800, Maximum: 6500, Step: 10, Default: 4600, Auto: whiteBalance},
		{ID: exposure, Type: Menu, Name: "Auto Exposure", Maximum: 3, Default: 3,
			Menu: map[int32]string{1: "Manual Mode", 3: "Aperture Priority Mode"}},
		{ID: camera + 2, Type: Integer, Name: "Exposure Time, Absolute", Minimum: 3, Maximum: 2047, Step: 1, Default: 250,
			Auto: exposure, Manual: 1},
	}
}

// validateControls refuses controls that a driver would not have.
func validateControls(controls []Control) error {
	var errs []error
	seen := map[uint32]bool{}
	for _, k := range controls {
		switch {
		case seen[k.ID]:
			errs = append(errs, fmt.Errorf("control %#x is there twice", k.ID))
		case k.ID == 0 || k.ID&ctrlFlagNext != 0 || len(k.Name) > 31 || k.Minimum > k.Default || k.Default > k.Maximum:
			errs = append(errs, fmt.Errorf("control %+v; want an id, a name of 31 bytes, and a default in its range", k))
		}
		seen[k.ID] = true
	}
	return errors.Join(errs...)
}

// control is the one of that id; with V4L2_CTRL_FLAG_NEXT_CTRL the first one
// after it.
func (c *camera) control(id uint32) (Control, bool) {
	if id&ctrlFlagNext == 0 {
		i := slices.IndexFunc(c.cfg.Controls, func(k Control) bool { return k.ID == id })
		if i < 0 {
			return Control{}, false
		}
		return c.cfg.Controls[i], true
	}
	after := slices.DeleteFunc(slices.Clone(c.cfg.Controls), func(k Control) bool { return k.ID <= id&^ctrlFlagNext })
	if len(after) == 0 {
		return Control{}, false
	}
	return slices.MinFunc(after, func(a, b Control) int { return cmp.Compare(a.ID, b.ID) }), true
}

// controlIoctl answers the requests about controls. A camera without any has
// none of them.
func (c *camera) controlIoctl(request uint32, a arg) syscall.Errno {
	if len(c.cfg.Controls) == 0 {
		return syscall.ENOTTY
	}
	k, ok := c.control(a.u32(0)) // each of the structures begins with the id
	if !ok {
		return syscall.EINVAL
	}
	switch request {
	case vidiocQueryctrl:
		k.describe(a)
		return 0
	case vidiocQuerymenu:
		return k.item(a)
	case vidiocSCtrl:
		return c.setControl(k, a)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a.put32(controlValue, uint32(c.values[k.ID]))
	return 0
}

func (k Control) describe(a arg) {
	clear(a)
	a.put32(queryctrlID, k.ID)
	a.put32(queryctrlType, uint32(k.Type))
	a.putText(queryctrlName, k.Name)
	a.put32(queryctrlMinimum, uint32(k.Minimum))
	a.put32(queryctrlMaximum, uint32(k.Maximum))
	a.put32(queryctrlStep, uint32(k.Step))
	a.put32(queryctrlDefault, uint32(k.Default))
}

func (k Control) item(a arg) syscall.Errno {
	name, ok := k.Menu[int32(a.u32(querymenuIndex))]
	if !ok {
		return syscall.EINVAL
	}
	a.putText(querymenuName, name+"\x00")
	return 0
}

// setControl takes a value over, as uvcvideo does it.
func (c *camera) setControl(k Control, a arg) syscall.Errno {
	value := int32(a.u32(controlValue))
	if value < k.Minimum || value > k.Maximum {
		return syscall.ERANGE
	}
	if _, ok := k.Menu[value]; k.Type == Menu && !ok {
		return syscall.EINVAL
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.Auto != 0 && c.values[k.Auto] != k.Manual {
		return syscall.EACCES
	}
	value -= value % max(k.Grain, 1)
	c.values[k.ID] = value
	a.put32(controlValue, uint32(value))
	return 0
}

// value answers a test that asks what a control was set to.
func (c *camera) value(id uint32) (int32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[id]
	if !ok {
		return 0, fmt.Errorf("the camera has no control %#x", id)
	}
	return v, nil
}
