package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"jsonsender": main, "jsonsender-ram": ramMain})
}

// fleet is a topology of one sensor and one jsonsender with these settings.
func fleet(settings string) string {
	return fmt.Sprintf(`[sensor.air]
program = "sensor-bme280"
[sensor.air.stream.count]

[worker.home]
program = "jsonsender"
source = "air"
%s
`, settings)
}

// sensor is the source "air", in the test's own process.
type sensor struct {
	t       *testing.T
	bus     *msg.Bus
	pub     *msg.Publisher
	out     *msg.ReadingStream
	columns int
	noisy   bool          // values do not compress
	n       atomic.Uint64 // readings so far
}

func newSensor(t *testing.T, b *boxtest.Box) *sensor {
	t.Helper()
	return newSensorOf(t, b, []string{"n"}, 2048)
}

// newSensorOf has these columns, and a history of that many messages.
func newSensorOf(t *testing.T, b *boxtest.Box, columns []string, history int) *sensor {
	t.Helper()
	return newSensorOn(t, b.Bus("air"), columns, history)
}

func newSensorOn(t *testing.T, bus *msg.Bus, columns []string, history int) *sensor {
	t.Helper()
	s := &sensor{t: t, bus: bus, columns: len(columns)}
	var err error
	if s.pub, err = s.bus.Publisher(); err == nil {
		s.out, err = s.pub.Readings("count", columns, msg.Retention{Messages: history, Expect: []string{"home"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sensor) publish() {
	values := slices.Repeat([]float64{float64(s.n.Load())}, s.columns)
	for i := range values {
		if s.noisy {
			values[i] = rand.Float64()
		}
	}
	if _, err := s.out.Publish(s.bus.Clock().Now(), values, nil); err != nil {
		s.t.Error(err)
	}
	s.n.Add(1)
}

// rows publishes n readings at once.
func (s *sensor) rows(n int) {
	for range n {
		s.publish()
	}
}

// run publishes at 500 Hz until stop is called.
func (s *sensor) run() (stop func()) { return s.runAt(2 * time.Millisecond) }

// runAt publishes each time that is over, until stop is called.
func (s *sensor) runAt(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			s.publish()
		}
	}()
	return func() { cancel(); <-done }
}

// more waits until it has published n more.
func (s *sensor) more(n int) {
	s.t.Helper()
	until := s.n.Load() + uint64(n)
	boxtest.Poll(s.t, "the sensor to publish", func() bool { return s.n.Load() >= until })
}

// id is that of the sensor's nth reading.
func (s *sensor) id(n int) string {
	return fmt.Sprintf("box/air/count/%s/%d", s.pub.Epoch(), n)
}
