package format

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestSenseMapBody(t *testing.T) {
	f := newFormat(t, "opensensemap", options("opensensemap"))
	r := of(t, aReading())
	one := string(encode(t, f, r))
	want := `[{"sensor":"5e9f0c3a1b2c3d4e5f607182","value":"21.484375","createdAt":"2026-05-17T09:41:07.250Z"},` +
		`{"sensor":"5e9f0c3a1b2c3d4e5f607183","value":"100653.25","createdAt":"2026-05-17T09:41:07.250Z"}]`
	if one != want {
		t.Errorf("Encode() = %s; want %s", one, want)
	}
	if b := f.Batch(); b.Most != 1250 || !b.BareToken {
		t.Errorf("Batch() = %+v; want 1250 records of two values, and a bare token", b)
	}
	// An array, since the service's other form, an object by sensor, keeps one value of each.
	var both []senseMapValue
	if err := json.Unmarshal(f.Batch().Join([][]byte{[]byte(one), []byte(one)}), &both); err != nil || len(both) != 4 {
		t.Errorf("Join() of two = %v, %v; want four values", both, err)
	}
	other := aReading()
	other.Source = "cellar"
	want = `[{"sensor":"5e9f0c3a1b2c3d4e5f607182","value":"21.484375","createdAt":"2026-05-17T09:41:07.250Z"}]`
	if got := string(encode(t, f, of(t, other))); got != want {
		t.Errorf("Encode(another source) = %s; want the column of every source alone: %s", got, want)
	}
}

func TestSenseMapSkips(t *testing.T) {
	f := newFormat(t, "opensensemap", options("opensensemap"))
	unsynced, empty := aReading(), aReading()
	unsynced.Synced = false
	empty.Columns, empty.Values, empty.Bad = []string{"humidity_pct"}, msg.Values{50}, nil
	wantSkip(t, f, of(t, unsynced), "not synchronised")
	wantSkip(t, f, of(t, empty), "no column of sensors")
	wantSkip(t, f, of(t, aDetection()), onlyReadings)
}

func TestSensorCommunityBody(t *testing.T) {
	f := newFormat(t, "sensor.community", options("sensor.community"))
	reading := aReading()
	reading.Columns = append(reading.Columns, "pm10_ug_m3", "pm2_5_ug_m3", "cpu_temperature_c")
	reading.Values = append(reading.Values, 12.5, 1e-7, 60)
	want := `{"software_version":"perch 0.1.0","sensordatavalues":[{"value_type":"temperature","value":"21.484375"},` +
		`{"value_type":"pressure","value":"100653.25"},{"value_type":"P1","value":"12.5"},{"value_type":"P2","value":"0.0000001"}]}`
	if got := string(encode(t, f, of(t, reading))); got != want {
		t.Errorf("Encode() = %s; want %s", got, want)
	}
	b := f.Batch()
	if diff := cmp.Diff(map[string]string{"X-Sensor": "raspi-00000000a1b2c3d4", "X-Pin": "11"}, b.Header); diff != "" || b.Most != 1 {
		t.Errorf("Batch() = %+v; want one record, and its header (-want +got):\n%s", b, diff)
	}
}

func TestSensorCommunitySkips(t *testing.T) {
	f := newFormat(t, "sensor.community", options("sensor.community"))
	dust, null := aReading(), aReading()
	dust.Stream = "dust"
	null.Values = msg.Values{math.NaN(), math.NaN(), math.NaN()}
	wantSkip(t, f, of(t, dust), "has no pin")
	wantSkip(t, f, of(t, null), "no column that it knows")
	wantSkip(t, f, of(t, aFile()), onlyReadings)
}

func TestSensorCommunityIsLate(t *testing.T) {
	f := newFormat(t, "sensor.community", options("sensor.community")).(interface {
		Late(r *record.Record, now time.Time) bool
	})
	r := of(t, aReading())
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{0, false}, {lateAfter, false}, {lateAfter + 1, true}, {-lateAfter, false}, {-lateAfter - 1, true}, {56 * 365 * 24 * time.Hour, true}} {
		if got := f.Late(r, r.Time.Add(c.age)); got != c.want {
			t.Errorf("Late(%v after it was measured) = %v; want %v", c.age, got, c.want)
		}
	}
}
