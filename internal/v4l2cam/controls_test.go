package v4l2cam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vladimirvivien/go4vl/v4l2"

	"github.com/perch-edge/perch/internal/fakev4l2"
)

// webcam is the small camera with these controls.
func webcam(controls []fakev4l2.Control) fakev4l2.Config {
	has := small
	has.Controls = controls
	return has
}

func set(lists ...[]Setting) []Setting { return slices.Concat(lists...) }

// Everything that can be set, and what the device says of itself afterwards.
func TestSettingsReachTheDevice(t *testing.T) {
	dev := plugIn(t, webcam(fakev4l2.Webcam()))
	for _, test := range []struct {
		name     string
		settings []Setting
		want     map[v4l2.CtrlID]int32
	}{
		{"by hand", set(Exposure("e", 12500*time.Microsecond), Gain("g", 40), WhiteBalance("w", 5000), UpsideDown("r"),
			[]Setting{Named("p", "power_line_frequency", 2), Named("b", "brightness", -64)}),
			map[v4l2.CtrlID]int32{v4l2.CtrlCameraExposureAuto: 1, v4l2.CtrlCameraExposureAbsolute: 125, v4l2.CtrlGain: 40,
				v4l2.CtrlAutoWhiteBalance: 0, v4l2.CtrlWhiteBalanceTemperature: 5000, v4l2.CtrlHFlip: 1, v4l2.CtrlVFlip: 1,
				v4l2.CtrlPowerlineFrequency: 2, v4l2.CtrlBrightness: -64}},
		{"nothing", nil, map[v4l2.CtrlID]int32{v4l2.CtrlCameraExposureAuto: 1, v4l2.CtrlGain: 40}}, // the camera has kept them
		{"automatic", set(AutoExposure("e"), AutoWhiteBalance("w")),
			map[v4l2.CtrlID]int32{v4l2.CtrlCameraExposureAuto: 3, v4l2.CtrlAutoWhiteBalance: 1}},
		{"by name", []Setting{Named("t", "exposure_time_absolute", 3), Named("a", "auto_exposure", 1)}, // in whatever order
			map[v4l2.CtrlID]int32{v4l2.CtrlCameraExposureAuto: 1, v4l2.CtrlCameraExposureAbsolute: 3}},
	} {
		cfg := wanted(dev.Path(), small)
		cfg.Settings = test.settings
		cam := openCamera(t, cfg)
		for id, want := range test.want {
			if got, err := dev.Control(id); got != want || err != nil {
				t.Errorf("%s: control %#x = %d, %v; want %d", test.name, id, got, err, want)
			}
		}
		for _, c := range cam.Controls() {
			if c.Asked != c.Got {
				t.Errorf("%s: Controls() has %+v; want what was asked", test.name, c)
			}
		}
		next(t, cam, make([]byte, cam.Info().FrameBytes))
		must(t, cam.Close())
	}
}

func TestSettingsTheCameraCannotHave(t *testing.T) {
	auto := fakev4l2.Control{ID: v4l2.CtrlAutogain, Type: fakev4l2.Boolean, Name: "Gain, Automatic", Maximum: 1, Step: 1, Default: 1}
	gain := fakev4l2.Control{ID: v4l2.CtrlGain, Type: fakev4l2.Integer, Name: "Gain", Maximum: 9, Step: 1, Auto: auto.ID}
	button := fakev4l2.Control{ID: v4l2.CtrlDoWhiteBalance, Type: fakev4l2.Button, Name: "White Balance, Once"}
	for _, test := range []struct {
		name     string
		has      []fakev4l2.Control
		settings []Setting
		want     map[string]string // by key; $ is the device
	}{
		{"out of range", fakev4l2.Webcam(), set(Exposure("exposure", 200*time.Microsecond), Gain("gain", 101), WhiteBalance("white_balance", 4605)),
			map[string]string{
				"exposure":      "$: exposure_time_absolute goes from 300µs to 204.7ms in steps of 100µs",
				"gain":          "$: gain goes from 0 to 100 in steps of 5",
				"white_balance": "$: white_balance_temperature goes from 2800 to 6500 in steps of 10"}},
		{"menu", fakev4l2.Webcam(), []Setting{Named("a", "auto_exposure", 2)},
			map[string]string{"a": "$: auto_exposure is one of 1 (Manual Mode), 3 (Aperture Priority Mode)"}},
		{"absent", []fakev4l2.Control{gain, auto, button}, set(Exposure("exposure", time.Second), UpsideDown("rotation"), []Setting{Named("controls.gian", "gian", 3)}),
			map[string]string{
				"exposure":      "$ has no control exposure_time_absolute; it has gain_automatic, gain",
				"rotation":      "$ has no control vertical_flip; it has gain_automatic, gain",
				"controls.gian": `$ has no control gian (did you mean "gain"?); it has gain_automatic, gain`}},
		{"none at all", nil, AutoGain("gain"), map[string]string{"gain": "$ has no control gain_automatic, and no other"}},
		{"twice", fakev4l2.Webcam(), set(Gain("gain", 40), []Setting{Named("controls.gain", "gain", 5)}),
			map[string]string{"controls.gain": "$: gain sets gain already"}},
		{"automatic is on", []fakev4l2.Control{gain, auto}, []Setting{Named("controls.gain", "gain", 5)},
			map[string]string{"controls.gain": "gain = 5: the camera does not let it be set: is an automatic on that has it?: set control value: id 9963795: permission denied"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dev := plugIn(t, webcam(test.has))
			cfg := wanted(dev.Path(), small)
			cfg.Settings = test.settings
			_, err := Open(t.Context(), cfg)
			bad := (ControlErrors)(nil)
			if !errors.As(err, &bad) {
				t.Fatalf("Open() = %v; want ControlErrors", err)
			}
			got := map[string]string{}
			for _, e := range bad {
				got[e.Key] = strings.ReplaceAll(e.Err.Error(), fmt.Sprintf("perch fake camera (%s)", dev.Path()), "$")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Open() refuses (-want +got):\n%s", diff)
			}
			for _, c := range test.has { // none was set
				if v, err := dev.Control(c.ID); v != c.Default || err != nil {
					t.Errorf("%s = %d, %v; want its default, %d", c.Name, v, err, c.Default)
				}
			}
			await(t, dev, "the device closed", func(s fakev4l2.Stats) bool { return s.Open == 0 })
		})
	}
}

// A camera that rounds by itself says what it took.
func TestControlsTellWhatTheCameraTook(t *testing.T) {
	dev := plugIn(t, webcam([]fakev4l2.Control{{ID: v4l2.CtrlGain, Type: fakev4l2.Integer, Name: "Gain", Maximum: 100, Step: 1, Grain: 8}}))
	cfg := wanted(dev.Path(), small)
	cfg.Settings = Gain("gain", 30) // without an automatic, there is none to switch off
	want := []Control{{Key: "gain", Name: "gain", Asked: 30, Got: 24}}
	if diff := cmp.Diff(want, openCamera(t, cfg).Controls()); diff != "" {
		t.Errorf("Controls() (-want +got):\n%s", diff)
	}
}

// A second process's settings leave a camera alone that is in use.
func TestSettingsOfACameraInUse(t *testing.T) {
	dev := plugIn(t, webcam(fakev4l2.Webcam()))
	cfg := wanted(dev.Path(), small)
	openCamera(t, cfg)
	cfg.Settings = Gain("gain", 40)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrBusy) {
		t.Errorf("second Open() = %v; want %v", err, ErrBusy)
	}
	if got, err := dev.Control(v4l2.CtrlGain); got != 20 || err != nil {
		t.Errorf("gain = %d, %v; want 20, as it was", got, err)
	}
}
