package pixel

import "testing"

func TestColourText(t *testing.T) {
	for text, want := range map[string]Colour{
		"auto": {}, "bt601": {Limited, BT601}, "bt601-full": {Full, BT601},
		"bt709": {Limited, BT709}, "bt709-full": {Full, BT709}, "bt2020": {Limited, BT2020},
	} {
		var c Colour
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("UnmarshalText(%q) = %v, %v; want %v", text, c, err, want)
		}
		if back, err := c.MarshalText(); err != nil || string(back) != text {
			t.Errorf("MarshalText(%v) = %q, %v; want %q", c, back, err, text)
		}
	}
	for _, text := range []string{"", "full", "-full", "bt601-", "bt2100", "BT709"} {
		c := Colour{Full, BT709}
		if err := c.UnmarshalText([]byte(text)); err == nil || c != (Colour{Full, BT709}) {
			t.Errorf("UnmarshalText(%q) = %v, %v; want an error, and no change", text, c, err)
		}
	}
}

func TestColourOr(t *testing.T) {
	for _, c := range []struct {
		format      Format
		given, want Colour
	}{
		{YUV420, Colour{}, Colour{Limited, BT601}},
		{MJPEG, Colour{}, Colour{Full, BT601}},
		{NV12, Colour{Range: Full}, Colour{Full, BT601}},
		{YUYV, Colour{Matrix: BT709}, Colour{Limited, BT709}},
		{RGB24, Colour{}, Colour{}},
	} {
		if got := c.given.Or(DefaultColour(c.format)); got != c.want {
			t.Errorf("%v.Or(DefaultColour(%s)) = %v; want %v", c.given, c.format, got, c.want)
		}
	}
}

func TestVideoColour(t *testing.T) {
	for text, want := range map[string]Matrix{"640x480": BT601, "720x576": BT601, "1024x576": BT601, "576x1024": BT601, "1280x720": BT709,
		"720x1280": BT709, "960x720": BT709, "1280x64": BT709, "1920x1080": BT709} {
		s, err := ParseSize(text)
		if got := VideoColour(s); err != nil || got != (Colour{Limited, want}) {
			t.Errorf("VideoColour(%s) = %v, %v; want %s", text, got, err, want)
		}
	}
}
