package simbme280

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	got, err := Parse("sim:seed=3,address=0x77,chip_id=0x58,io_error_every=20,io_error_run=2,brownout_every=50,stuck_every=7,absent=true,humidity_pct=44.5")
	want := Options{Seed: 3, Address: 0x77, ChipID: 0x58, IOErrorEvery: 20, IOErrorRun: 2, BrownoutEvery: 50, StuckEvery: 7, Absent: true}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Options{}, "Truth")); err != nil || diff != "" {
		t.Fatalf("Parse = %v, difference (-want +got):\n%s", err, diff)
	}
	now := time.Date(2025, 5, 5, 5, 5, 5, 0, time.UTC)
	wantT, wantP, _ := WeatherOf(3)(now)
	if gotT, gotP, gotH := got.Truth(now); gotT != wantT || gotP != wantP || gotH != 44.5 {
		t.Errorf("Truth = %v, %v, %v; want %v, %v, 44.5", gotT, gotP, gotH, wantT, wantP)
	}
}

func TestParseEmpty(t *testing.T) {
	got, err := Parse("sim:")
	if diff := cmp.Diff(Options{}, got, cmpopts.IgnoreFields(Options{}, "Truth")); err != nil || diff != "" {
		t.Errorf("Parse(sim:) = %v, difference (-want +got):\n%s", err, diff)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		config string
		want   []string // each stands in the error
	}{
		{"/dev/i2c-1", []string{`bus "/dev/i2c-1"`, `want "sim:" first`}},
		{"sim:io_eror_every=20", []string{`unknown key "io_eror_every"; did you mean "io_error_every"?`}},
		{"sim:sed=1", []string{`did you mean "seed"?`}},
		{"sim:colour=red", []string{`unknown key "colour"; known are seed, address`, "humidity_pct"}},
		{"sim:seed=x", []string{`key "seed" is "x", want a whole number from 0`}},
		{"sim:io_error_every=0", []string{`key "io_error_every" is "0", want a whole number from 1`}},
		{"sim:absent", []string{`key "absent" is "", want true or false`}},
		{"sim:address=0x40", []string{"want 0x76 or 0x77"}},
		{"sim:temperature_c=NaN", []string{"want a finite number"}},
		{"sim:seed=1,seed=2", []string{`key "seed" stands twice`}},
		{"sim:seed=1,", []string{`unknown key ""`}},
		{"sim:seed=-1,absent=no,speed=2", []string{`key "seed" is "-1"`, `key "absent" is "no"`, `did you mean "seed"?`}},
	} {
		_, err := Parse(tt.config)
		if err == nil {
			t.Errorf("Parse(%q) = nil; want an error", tt.config)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Parse(%q) = %q; want it to contain %q", tt.config, err, want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"sim:", "sim:seed=3,io_error_every=20,brownout_every=50", "sim:address=0x77,absent=true,temperature_c=-3.5e1",
		"sim:seed=1,seed=1", "sim:,", "sim:=", "/dev/i2c-1", "sim:absnt=true", "sim:stuck_every=0x7fffffff,chip_id=255",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, config string) {
		opts, err := Parse(config)
		if err != nil {
			if opts.Truth != nil || !strings.HasPrefix(err.Error(), "parse bus ") {
				t.Errorf("Parse(%q) = %+v, %q; want no options and an error that says where", config, opts, err)
			}
			return
		}
		if !strings.HasPrefix(config, Prefix) || opts.IOErrorEvery < 0 || opts.BrownoutEvery < 0 || opts.StuckEvery < 0 ||
			opts.Address != 0 && opts.Address != 0x76 && opts.Address != 0x77 {
			t.Errorf("Parse(%q) = %+v; want options within their bounds", config, opts)
		}
		c := New(opts)
		if c.opts.Address == 0 || c.opts.ChipID == 0 || c.opts.Now == nil {
			t.Errorf("New(Parse(%q)) has no defaults: %+v", config, c.opts)
		}
		// A chip built from it must be able to measure whatever the air was said to be.
		_, _, _ = c.cal.codes(c.opts.Truth(time.Unix(1e9, 0)))
	})
}
