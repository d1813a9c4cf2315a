package bme280

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"
)

// Registers (5.3).
const (
	regTrimTP  = 0x88
	regID      = 0xD0
	regReset   = 0xE0
	regTrimH   = 0xE1
	regCtrlHum = 0xF2
	regStatus  = 0xF3
	regConfig  = 0xF5
	regHum     = 0xFD

	idBME280      = 0x60
	resetWord     = 0xB6
	statusLoading = 1
	startUp       = 2 * time.Millisecond // table 1
	notMeasured   = 0x8000               // 5.4.9
)

// registers are what ctrl_hum, ctrl_meas and config hold while the chip sleeps.
type registers struct{ ctrlHum, ctrlMeas, config byte }

func (s settings) registers() registers {
	t, _ := osrs(s.samples.Temperature)
	p, _ := osrs(s.samples.Pressure)
	h, _ := osrs(s.samples.Humidity)
	f, _ := filterField(s.filter)
	const standby1s = 5 << 5 // what periph writes; forced mode does not use it
	return registers{byte(h), byte(t)<<5 | byte(p)<<2, standby1s | byte(f)<<2}
}

// create finds and resets the chip and gives it a new periph driver.
func (s *Sensor) create() error {
	s.dev = nil
	if err := s.identify(); err != nil {
		return err
	}
	if err := s.reset(); err != nil {
		return fmt.Errorf("reset chip: %w", err)
	}
	t, _ := osrs(s.samples.Temperature)
	p, _ := osrs(s.samples.Pressure)
	h, _ := osrs(s.samples.Humidity)
	dev, err := bmxx80.NewI2C(s.line, s.line.addr, &bmxx80.Opts{Temperature: t, Pressure: p, Humidity: h})
	if err != nil {
		return fmt.Errorf("create driver: %w", err)
	}
	// The id was right a moment ago, but one misread bit now and periph would leave humidity out without a word.
	if !strings.HasPrefix(dev.String(), "BME280{") {
		return fmt.Errorf("create driver: it found a %s, want a BME280", dev)
	}
	if err := s.line.checkTrim(); err != nil {
		return err
	}
	// Periph sets the filter in normal mode only.
	if s.filter != 0 {
		if err := s.line.write(regConfig, s.want.config); err != nil {
			return fmt.Errorf("set filter: %w", err)
		}
	}
	s.dev, s.created = dev, s.now()
	s.creations.Add(1)
	return nil
}

// identify reads the chip id.
func (s *Sensor) identify() error {
	err := s.line.read(regID, 1)
	if errors.Is(err, errCut) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: nothing answers at 0x%02x on %s (%w): %s", ErrNoDevice, s.line.addr, s.name, err, s.advice())
	}
	id := s.line.seen[regID]
	if id == idBME280 {
		return nil
	}
	return fmt.Errorf("%w: the chip at 0x%02x on %s has id 0x%02x (%s), want 0x%02x (BME280)",
		ErrNoDevice, s.line.addr, s.name, id, chipName(id), idBME280)
}

// advice says what to do about silence; if a BME280 answers at the other address, that is it.
func (s *Sensor) advice() string {
	other := s.line.addr ^ 1 // 0x76 and 0x77
	var id [1]byte
	if s.line.Tx(other, []byte{regID}, id[:]) == nil && id[0] == idBME280 {
		return fmt.Sprintf("a BME280 answers at 0x%02x: set that address", other)
	}
	return fmt.Sprintf("check wiring and power (VIN, GND, SDA, SCL), see which addresses answer with `i2cdetect -y %s`, "+
		"and try 0x%02x, which the chip has with SDO the other way", busNumber(s.name), other)
}

// busNumber is what i2cdetect calls a bus, or N where the name does not tell.
func busNumber(name string) string {
	if number, ok := strings.CutPrefix(busNode(name), "/dev/i2c-"); ok {
		return number
	}
	return "N"
}

func chipName(id byte) string {
	switch id {
	case 0x55:
		return "a BMP180, which has no humidity"
	case 0x56, 0x57, 0x58:
		return "a BMP280, which has no humidity"
	case 0x61:
		return "a BME680, which needs another driver"
	case 0x00, 0xFF:
		return "no chip: the data line is held"
	}
	return "not known"
}

// reset gives every register its power-on value and waits until the trimming values are there to be read.
func (s *Sensor) reset() error {
	if err := s.line.write(regReset, resetWord); err != nil {
		return err
	}
	for {
		time.Sleep(startUp) //nolint:forbidigo // the data sheet says how long; under watch
		if err := s.line.read(regStatus, 1); err != nil {
			return err
		}
		if s.line.seen[regStatus]&statusLoading == 0 {
			return nil
		}
	}
}

// checkTrim reads the trimming values once more and refuses them where the driver read others, and where it would
// turn them into plausible nonsense. They have no checksum, and a chip whose supply dips while they are read gives
// anything; if it dips after the status was read here, the settings are gone and the next reading finds out.
func (l *line) checkTrim() error {
	driver := l.seen
	for _, burst := range []struct {
		reg byte
		n   int
	}{{regStatus, 1}, {regTrimTP, 26}, {regTrimH, 7}} {
		if err := l.read(burst.reg, burst.n); err != nil {
			return fmt.Errorf("read trimming values: %w", err)
		}
	}
	tp, h := l.seen[regTrimTP:regTrimTP+26], l.seen[regTrimH:regTrimH+7]
	if l.seen[regStatus]&statusLoading != 0 || !bytes.Equal(tp, driver[regTrimTP:regTrimTP+26]) ||
		!bytes.Equal(h, driver[regTrimH:regTrimH+7]) {
		return errors.New("read trimming values: two reads differ, want them the same: check the supply and the wires")
	}
	for _, v := range [][]byte{tp[:2], tp[6:8], h[:2]} { // T1, P1, H2: their columns hang on them
		if v[0] == v[1] && (v[0] == 0 || v[0] == 0xFF) {
			return fmt.Errorf("read trimming values: % x, % x, want those of a working chip", tp, h)
		}
	}
	// H4 and H5 are signed (4.2.2), but periph v3.7.4 takes them as unsigned.
	if (h[3]|h[5])&0x80 != 0 {
		return fmt.Errorf("read trimming values: the upper bytes of H4 and H5 are 0x%02x and 0x%02x, want less than 0x80: "+
			"periph's driver would compute a wrong humidity from negative ones", h[3], h[5])
	}
	return nil
}

// measure measures, again where the humidity converter shows 0x8000. Air can have that code too, but hardly
// three times in a row: the noise of 3.6 is several codes wide.
func (s *Sensor) measure() (env physic.Env, frozen bool, err error) {
	for range 3 {
		if env, err = s.measureOnce(); err != nil {
			return env, false, err
		}
		if code := int(s.line.seen[regHum])<<8 | int(s.line.seen[regHum+1]); code != notMeasured {
			return env, false, nil
		}
	}
	return env, true, nil
}

// measureOnce measures with settings that are known to have been in force. A chip that lost them is set up
// again, once.
func (s *Sensor) measureOnce() (physic.Env, error) {
	for tries := 1; ; tries++ {
		env, err := s.sense()
		if err == nil {
			err = s.settingsHeld()
		}
		if err == nil {
			return env, nil
		}
		s.dev = nil
		if !errors.Is(err, errLost) || tries == 2 {
			return physic.Env{}, err
		}
	}
}

func (s *Sensor) sense() (env physic.Env, err error) {
	if age := s.now().Sub(s.created); s.dev == nil || age >= s.refresh || age < 0 {
		if err := s.create(); err != nil {
			return env, err
		}
	}
	err = s.dev.Sense(&env)
	return env, err
}

// errLost marks settings that are not those which were written.
var errLost = errors.New("chip lost its settings, as after a dip of its supply")

// settingsHeld reads back what only this package and its driver write.
func (s *Sensor) settingsHeld() error {
	if err := s.line.read(regCtrlHum, 4); err != nil {
		return fmt.Errorf("read settings back: %w", err)
	}
	b := s.line.seen[regCtrlHum:]
	if got := (registers{b[0] & 7, b[2], b[3] & 0xFC}); got != s.want {
		s.brownOuts.Add(1)
		return fmt.Errorf("%w: ctrl_hum, ctrl_meas, config are %02x, want %02x: check the supply and its wires", errLost, got, s.want)
	}
	return nil
}
