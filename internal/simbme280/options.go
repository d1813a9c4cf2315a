package simbme280

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
)

// Prefix begins each configuration string.
const Prefix = "sim:"

// Options is what [New] builds. Each field but Truth and Now has a key in a configuration string, see [Parse].
type Options struct {
	Seed          uint64 // seed: which weather
	Address       uint16 // address: where the chip answers, 0x76 (default) or 0x77; elsewhere nothing does
	ChipID        byte   // chip_id: 0x60 (default) is a BME280, 0x58 a BMP280
	IOErrorEvery  int    // io_error_every: each n-th transaction fails with EREMOTEIO
	IOErrorRun    int    // io_error_run: and so do the next ones, this many in all; 0 is 1
	BrownoutEvery int    // brownout_every: the chip loses power for a moment before each n-th transaction
	StuckEvery    int    // stuck_every: each n-th conversion never ends, until a reset
	Absent        bool   // absent: nothing answers (ENXIO)

	Truth Truth            // nil: WeatherOf(Seed); temperature_c, pressure_pa and humidity_pct hold one column still
	Now   func() time.Time // the clock of the conversions and of the air; nil: time.Now
}

// Parse reads "sim:" and, after it, "key=value" options with commas between, for example
// "sim:seed=3,io_error_every=20,brownout_every=50". Numbers may be decimal or 0x and hexadecimal.
// All that is wrong is reported at once, each with the key, what was found and what is allowed.
func Parse(config string) (Options, error) {
	rest, ok := strings.CutPrefix(config, Prefix)
	if !ok {
		return Options{}, fmt.Errorf("parse bus %q: want %q first", config, Prefix)
	}
	p := newParser()
	var errs []error
	seen := map[string]bool{}
	for field := range strings.SplitSeq(rest, ",") {
		if rest == "" {
			break
		}
		key, value, _ := strings.Cut(field, "=")
		switch err := p.set(key, value); {
		case seen[key]:
			errs = append(errs, fmt.Errorf("parse bus %q: key %q stands twice", config, key))
		case err != nil:
			errs = append(errs, fmt.Errorf("parse bus %q: %w", config, err))
		}
		seen[key] = true
	}
	if len(errs) > 0 {
		return Options{}, errors.Join(errs...)
	}
	return p.options(), nil
}

// parser gathers what the keys say.
type parser struct {
	opts     Options
	keys     []key
	air      [3]float64
	constant [3]bool
}

type key struct {
	name    string
	allowed string
	set     func(value string) bool
}

func newParser() *parser {
	p := &parser{}
	every := func(to *int) func(string) bool {
		return func(v string) bool {
			n, err := strconv.ParseInt(v, 0, 32)
			*to = int(n)
			return err == nil && n >= 1
		}
	}
	p.keys = []key{
		{"seed", "a whole number from 0", func(v string) (ok bool) { p.opts.Seed, ok = number(v, 64); return ok }},
		{"address", "0x76 or 0x77", func(v string) bool {
			n, ok := number(v, 16)
			p.opts.Address = uint16(n)
			return ok && (n == 0x76 || n == 0x77)
		}},
		{"chip_id", "0x01 to 0xff; 0x60 is a BME280, 0x58 a BMP280", func(v string) bool {
			n, ok := number(v, 8)
			p.opts.ChipID = byte(n)
			return ok && n > 0
		}},
		{"io_error_every", "a whole number from 1", every(&p.opts.IOErrorEvery)},
		{"io_error_run", "a whole number from 1", every(&p.opts.IOErrorRun)},
		{"brownout_every", "a whole number from 1", every(&p.opts.BrownoutEvery)},
		{"stuck_every", "a whole number from 1", every(&p.opts.StuckEvery)},
		{"absent", "true or false", func(v string) bool {
			p.opts.Absent = v == "true"
			return v == "true" || v == "false"
		}},
		p.column(0, "temperature_c"), p.column(1, "pressure_pa"), p.column(2, "humidity_pct"),
	}
	return p
}

func number(v string, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(v, 0, bits)
	return n, err == nil
}

// column is the key that holds one value of the air still.
func (p *parser) column(i int, name string) key {
	return key{name, "a finite number", func(v string) bool {
		f, err := strconv.ParseFloat(v, 64)
		p.air[i], p.constant[i] = f, true
		return err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	}}
}

func (p *parser) set(name, value string) error {
	var known []string
	for _, k := range p.keys {
		if k.name != name {
			known = append(known, k.name)
			continue
		}
		if !k.set(value) {
			return fmt.Errorf("key %q is %q, want %s", name, value, k.allowed)
		}
		return nil
	}
	return fmt.Errorf("unknown key %q%s", name, nearest.Hint(name, known))
}

func (p *parser) options() Options {
	air, constant, weather := p.air, p.constant, WeatherOf(p.opts.Seed)
	p.opts.Truth = func(now time.Time) (tempC, pressurePa, humidityPct float64) {
		var v [3]float64
		v[0], v[1], v[2] = weather(now)
		for i := range v {
			if constant[i] {
				v[i] = air[i]
			}
		}
		return v[0], v[1], v[2]
	}
	return p.opts
}
