package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/perch-edge/perch/pkg/msg"
)

func rowOf(topic msg.Topic, samples ...sample) row {
	m := &meter{}
	for _, s := range samples {
		m.add(s)
	}
	return row{Topic: topic, Epoch: m.last.epoch, Runs: m.runs, Seq: m.last.seq, Silent: 2500 * ms, tally: m.all}
}

func someRows() []row {
	quiet := rowOf("reading/air/environment")
	quiet.Runs = 1
	return []row{
		rowOf("frame/porch/video", at(1, 0, 0), at(1, 1, 20*ms), at(1, 9, 180*ms)),
		quiet,
		rowOf("state/a-worker-with-a-long-name/state", at(1, 0, 0), at(2, 1, time.Second)),
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		name string
		view view
		want string
	}{
		{"hz", hzView(), `
TOPIC                                            HZ           MIN           MAX           DEV   MISSED
frame/porch/video                            50.000     20.000 ms     20.000 ms      0.000 ms        7
reading/air/environment                           -             -             -             -        0  silent for 2.5 s
state/a-worker-with-a-long-name/state             -             -             -             -        1  new run, epoch 0000000000000002
`},
		{"bw", bwView(), `
TOPIC                                        FRAMES           BUS       A FRAME     A MESSAGE   MISSED
frame/porch/video                         50.0 kB/s      5.0 kB/s        1.0 kB         100 B        7
reading/air/environment                           -             -             -             -        0  silent for 2.5 s
state/a-worker-with-a-long-name/state             -             -        1.0 kB         100 B        1  new run, epoch 0000000000000002
`},
		{"delay", delayView(), `
TOPIC                                           MIN           P50           P99           MAX   MISSED
frame/porch/video                          3.000 ms      3.000 ms      3.000 ms      3.000 ms        7
reading/air/environment                           -             -             -             -        0  silent for 2.5 s
state/a-worker-with-a-long-name/state      3.000 ms      3.000 ms      3.000 ms      3.000 ms        1  new run, epoch 0000000000000002
`},
	} {
		var out bytes.Buffer
		p := printer{out: &out, view: c.view}
		if err := p.print(someRows()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, "\n"+out.String()); diff != "" {
			t.Errorf("%s: want -, got +\n%s", c.name, diff)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	p := printer{out: &out, view: hzView(), json: true}
	if err := p.print(someRows()[:2]); err != nil {
		t.Fatal(err)
	}
	want := `{"topic":"frame/porch/video","epoch":"0000000000000001","runs":1,"seq":9,"summary":false,"messages":3,"missed":7,"silent_s":2.5,"hz":50,"min_ms":20,"max_ms":20,"dev_ms":0}
{"topic":"reading/air/environment","epoch":"0000000000000000","runs":1,"seq":0,"summary":false,"messages":0,"missed":0,"silent_s":2.5,"hz":null,"min_ms":null,"max_ms":null,"dev_ms":null}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 3_110_400: "3.1 MB", 5e13: "50.0 TB", 5e16: "50000.0 TB"} {
		if got := bytesText(v, ""); got != want {
			t.Errorf("bytesText(%v) = %q; want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{29.97002997: "29.97", 93_312_000.4: "93312000", 0.000012345678: "0.0000123457", 0: "0"} {
		if got := numberJSON(v); got != want {
			t.Errorf("numberJSON(%v) = %s; want %s", v, got, want)
		}
	}
}

// What others wrote must not steer a terminal.
func TestPlain(t *testing.T) {
	if got := plain("ok \x1b[2J\u009b1m\n\tµ°C"); got != "ok ?[2J?1m??µ°C" {
		t.Errorf("plain() = %q; want no control characters", got)
	}
}
