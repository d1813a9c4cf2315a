package v4l2cam

import (
	"strconv"
	"time"

	"github.com/vladimirvivien/go4vl/v4l2"
)

// Setting is a value that Open gives to one of the camera's controls.
type Setting struct {
	key      string      // what the caller calls it
	id       v4l2.CtrlID // which control
	name     string      // the same as v4l2-ctl writes it; it decides where there is no id
	values   []int32     // the first one that the control has: menus differ
	optional bool        // a camera without this control does not need it
	show     func(int32) string
}

// ExposureUnit is what V4L2 counts an exposure in.
const ExposureUnit = 100 * time.Microsecond

// The items of the menu "auto exposure", enum v4l2_exposure_auto_type.
const (
	exposureAuto = iota
	exposureManual
	exposureShutterPriority
	exposureAperturePriority
)

// Exposure has each picture exposed for a time, in whole ExposureUnits. key is
// what the caller calls this, here as in the other functions.
func Exposure(key string, t time.Duration) []Setting {
	return []Setting{
		{key: key, id: v4l2.CtrlCameraExposureAuto, name: "auto_exposure", values: []int32{exposureManual, exposureShutterPriority}, optional: true},
		{key: key, id: v4l2.CtrlCameraExposureAbsolute, name: "exposure_time_absolute", values: []int32{int32(t / ExposureUnit)},
			show: func(n int32) string { return (time.Duration(n) * ExposureUnit).String() }},
	}
}

// AutoExposure leaves the exposure to the camera.
func AutoExposure(key string) []Setting {
	return []Setting{{key: key, id: v4l2.CtrlCameraExposureAuto, name: "auto_exposure", values: []int32{exposureAuto, exposureAperturePriority}}}
}

// Gain sets the gain, in the camera's own steps.
func Gain(key string, gain int32) []Setting {
	return manual(Setting{key: key, id: v4l2.CtrlGain, name: "gain", values: []int32{gain}}, AutoGain(key))
}

// AutoGain leaves the gain to the camera.
func AutoGain(key string) []Setting {
	return []Setting{{key: key, id: v4l2.CtrlAutogain, name: "gain_automatic", values: []int32{1}}}
}

// WhiteBalance sets the colour temperature that is to look white.
func WhiteBalance(key string, kelvin int32) []Setting {
	return manual(Setting{key: key, id: v4l2.CtrlWhiteBalanceTemperature, name: "white_balance_temperature", values: []int32{kelvin}}, AutoWhiteBalance(key))
}

// AutoWhiteBalance leaves that to the camera.
func AutoWhiteBalance(key string) []Setting {
	return []Setting{{key: key, id: v4l2.CtrlAutoWhiteBalance, name: "white_balance_automatic", values: []int32{1}}}
}

// manual sets a value after its automatic, if there is one, was switched off.
func manual(value Setting, auto []Setting) []Setting {
	auto[0].values, auto[0].optional = []int32{0}, true
	return append(auto, value)
}

// UpsideDown turns the picture by half a turn.
func UpsideDown(key string) []Setting {
	return []Setting{
		{key: key, id: v4l2.CtrlHFlip, name: "horizontal_flip", values: []int32{1}},
		{key: key, id: v4l2.CtrlVFlip, name: "vertical_flip", values: []int32{1}},
	}
}

// Named sets any control, by the name that v4l2-ctl gives it.
func Named(key, name string, value int32) Setting {
	return Setting{key: key, name: name, values: []int32{value}}
}

// text is a value as the caller writes it.
func (s Setting) text(value int32) string {
	if s.show != nil {
		return s.show(value)
	}
	return strconv.Itoa(int(value))
}
