package main

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/perch-edge/perch/internal/v4l2cam"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/topology"
)

// Controls are the keys that say how a camera takes its pictures. What is left
// out stays as the camera has it.
type Controls struct {
	Exposure     Exposure         `toml:"exposure" doc:"v4l2: how long each picture is exposed, as \"10ms\", or \"auto\""`
	Gain         Level            `toml:"gain" doc:"v4l2: a number in the camera's own steps, or \"auto\""`
	WhiteBalance Level            `toml:"white_balance" doc:"v4l2: the light's colour in kelvin, as 4600, or \"auto\""`
	Rotation     int              `toml:"rotation" doc:"degrees clockwise: 180 for v4l2:; 90, 180 or 270 for file: and rtsp:; 0 is as it comes"`
	Others       map[string]int32 `toml:"controls" doc:"v4l2: other controls by the names that v4l2-ctl -l lists, as {sharpness = 3}"`
}

// Exposure is a length of time, or "auto". The zero value is neither.
type Exposure struct {
	Auto bool
	Time time.Duration
}

const wantExposure = `want "auto" or a length of time in steps of 100µs, such as "10ms"`

// UnmarshalText reads what String writes.
func (e *Exposure) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*e = Exposure{Auto: true}
		return nil
	}
	t, err := time.ParseDuration(string(text))
	if err != nil || t <= 0 || t%v4l2cam.ExposureUnit != 0 || t/v4l2cam.ExposureUnit > math.MaxInt32 {
		return errors.New(wantExposure)
	}
	*e = Exposure{Time: t}
	return nil
}

func (e Exposure) String() string {
	switch {
	case e.Auto:
		return "auto"
	case e.Time == 0:
		return ""
	}
	return e.Time.String()
}

// Level is a number, or "auto". The zero value is neither.
type Level struct {
	Auto, Set bool
	Number    int32
}

// UnmarshalTOML reads a number, or the word.
func (l *Level) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		if v == "auto" {
			*l = Level{Auto: true}
			return nil
		}
	case int64:
		if v >= 0 && v <= math.MaxInt32 {
			*l = Level{Set: true, Number: int32(v)}
			return nil
		}
	}
	return errors.New(`want "auto" or a whole number, not negative`)
}

func (l Level) String() string {
	switch {
	case l.Auto:
		return "auto"
	case l.Set:
		return strconv.Itoa(int(l.Number))
	}
	return ""
}

// check refuses what that kind of input cannot do.
func (c Controls) check(scheme Scheme) error {
	var errs []error
	refuse := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	switch c.Rotation {
	case 0, 180:
	case 90, 270:
		if scheme == V4L2 {
			refuse("rotation", "a device turns its pictures by 180 only")
		}
	default:
		refuse("rotation", "want 0, 90, 180 or 270")
	}
	given := map[string]bool{"exposure": c.Exposure != Exposure{}, "gain": c.Gain != Level{}, "white_balance": c.WhiteBalance != Level{},
		"controls": len(c.Others) > 0, "rotation": c.Rotation != 0 && scheme != File && scheme != RTSP}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		switch {
		case !given[key] || scheme == V4L2 || scheme == "":
		case scheme == Exec:
			refuse(key, "the command sets this by its own arguments; rpicam-vid by %s", rpicamOption(key))
		default:
			refuse(key, "%s: has no such control", scheme)
		}
	}
	return errors.Join(errs...)
}

// rpicamOption is what a Raspberry Pi's own program calls a key.
func rpicamOption(key string) string {
	switch key {
	case "exposure":
		return "--shutter MICROSECONDS"
	case "gain":
		return "--gain NUMBER"
	case "white_balance":
		return "--awb NAME or --awbgains RED,BLUE"
	case "rotation":
		return "--rotation 180"
	}
	return "the options that rpicam-vid --help lists"
}

// settings are the controls as a V4L2 camera has them.
func (c Controls) settings() (list []v4l2cam.Setting) {
	switch {
	case c.Exposure.Auto:
		list = append(list, v4l2cam.AutoExposure("exposure")...)
	case c.Exposure.Time > 0:
		list = append(list, v4l2cam.Exposure("exposure", c.Exposure.Time)...)
	}
	switch {
	case c.Gain.Auto:
		list = append(list, v4l2cam.AutoGain("gain")...)
	case c.Gain.Set:
		list = append(list, v4l2cam.Gain("gain", c.Gain.Number)...)
	}
	switch {
	case c.WhiteBalance.Auto:
		list = append(list, v4l2cam.AutoWhiteBalance("white_balance")...)
	case c.WhiteBalance.Set:
		list = append(list, v4l2cam.WhiteBalance("white_balance", c.WhiteBalance.Number)...)
	}
	if c.Rotation == 180 {
		list = append(list, v4l2cam.UpsideDown("rotation")...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Others)) {
		list = append(list, v4l2cam.Named("controls."+name, name, c.Others[name]))
	}
	return list
}

// filters are how ffmpeg turns pictures.
func (c Controls) filters() []string {
	switch c.Rotation {
	case 90:
		return []string{"transpose=clock"}
	case 180:
		return []string{"hflip", "vflip"}
	case 270:
		return []string{"transpose=cclock"}
	}
	return nil
}

// turn is the size of a picture after it was turned.
func (c Controls) turn(s pixel.Size) pixel.Size {
	if c.Rotation == 90 || c.Rotation == 270 {
		s.Width, s.Height = s.Height, s.Width
	}
	return s
}
