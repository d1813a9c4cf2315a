package bme280

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perch-edge/perch/internal/simbme280"
)

func TestStuckBusyBitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip, WithTimeout(time.Second))
		chip.SetStuck(true)
		for range 2 { // the second time with a new driver: the bit survives a reset here
			start := time.Now()
			r, err := s.Read(t.Context())
			if !errors.Is(err, ErrTimeout) || errors.Is(err, ErrStuck) || !isUnknown(r) {
				t.Errorf("Read with the busy bit up = %+v, %v; want NaN and ErrTimeout", r, err)
			}
			if err != nil && !strings.Contains(err.Error(), "status register 0x08") {
				t.Errorf("Read = %q; want it to show the status register", err)
			}
			if got := time.Since(start); got < time.Second || got > 1010*time.Millisecond {
				t.Errorf("Read took %v; want 1s", got)
			}
		}
		chip.SetStuck(false)
		wantRead(t, s, 20, 100000, 50)
	})
}

func TestHungConversionIsResetByTheNextRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, simbme280.New(simbme280.Options{Truth: still(20, 100000, 50), StuckEvery: 2}))
		wantRead(t, s, 20, 100000, 50)
		if _, err := s.Read(t.Context()); !errors.Is(err, ErrTimeout) {
			t.Errorf("Read = %v; want ErrTimeout", err)
		}
		wantRead(t, s, 20, 100000, 50)
	})
}

func TestCancelEndsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := simbme280.New(simbme280.Options{Truth: still(20, 100000, 50)})
		s := mustNew(t, chip)
		chip.SetStuck(true)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		start := time.Now()
		if r, err := s.Read(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) || !isUnknown(r) {
			t.Errorf("cancelled Read = %+v, %v; want NaN and context.Canceled", r, err)
		}
		if got := time.Since(start); got > 310*time.Millisecond {
			t.Errorf("cancelled Read took %v; want 300ms", got)
		}
		if _, err := s.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Read with an ended context = %v; want context.Canceled", err)
		}
		chip.SetStuck(false)
		wantRead(t, s, 20, 100000, 50)
	})
}

func TestTransactionThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		bus := &hooked{BusCloser: simbme280.New(simbme280.Options{})}
		s := mustNew(t, bus, WithTimeout(time.Second))
		bus.restart(func(int) error {
			<-release
			return errors.New("released")
		})
		start := time.Now()
		if r, err := s.Read(t.Context()); !errors.Is(err, ErrStuck) || !isUnknown(r) {
			t.Errorf("Read on a hung bus = %+v, %v; want NaN and ErrStuck", r, err)
		}
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("Read on a hung bus took %v; want twice the timeout, 2s", got)
		}
		if _, err := s.Read(t.Context()); !errors.Is(err, ErrStuck) {
			t.Errorf("next Read = %v; want ErrStuck", err)
		}
		if err := s.Close(); !errors.Is(err, ErrStuck) {
			t.Errorf("Close = %v; want ErrStuck, without waiting", err)
		}
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("later calls took %v; want them at once", got-2*time.Second)
		}
		close(release)
		time.Sleep(time.Second) // the bubble must end empty
	})
}

func TestOpenOnABusThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		bus := &hooked{BusCloser: simbme280.New(simbme280.Options{}), before: func(int) error {
			<-release
			return errors.New("released")
		}}
		if _, err := New(bus, 0x76); !errors.Is(err, ErrStuck) || errors.Is(err, ErrNoDevice) {
			t.Errorf("New on a hung bus = %v; want ErrStuck only", err)
		}
		close(release)
		time.Sleep(time.Second)
	})
}

func TestCountersWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, simbme280.New(simbme280.Options{}), WithRefresh(time.Millisecond))
		done := make(chan uint64)
		go func() {
			var last uint64
			for range 50 {
				last = s.Counters().Created
				time.Sleep(10 * time.Millisecond)
			}
			done <- last
		}()
		for range 20 {
			if _, err := s.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-done; got < 5 {
			t.Errorf("Created seen from beside = %d; want it to rise", got)
		}
	})
}
