package format

import (
	"encoding/json"
	"strings"
	"testing"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// anEvent reads an event with the CloudEvents SDK, which checks it.
func anEvent(t testing.TB, text []byte) ce.Event {
	t.Helper()
	var e ce.Event
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("the SDK reads %s: %v", text, err)
	}
	if err := e.Validate(); err != nil {
		t.Fatalf("the SDK validates %s: %v", text, err)
	}
	return e
}

func TestEventOfAReading(t *testing.T) {
	r := of(t, aReading())
	e := anEvent(t, encode(t, cloudEvents{}, r))
	got := []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.DataContentType(), e.Time().UTC().String()}
	want := []string{
		"airpi-01/air/environment/000283baec0033c3/1342", "/perch/airpi-01/air", "io.github.perch-edge.perch.reading", "environment",
		"application/json", "2026-05-17 09:41:07.25 +0000 UTC",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	extensions := map[string]any{"node": "airpi-01", "epoch": "000283baec0033c3", "sequence": "0000000000001342", "synced": true}
	if diff := cmp.Diff(extensions, e.Extensions()); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
	var data, header map[string]any
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		t.Fatal(err)
	}
	row := map[string]any{"temperature_c": 21.484375, "pressure_pa": 100653.25, "humidity_pct": nil}
	if diff := cmp.Diff(row, data["row"]); diff != "" {
		t.Errorf("data.row (-want +got):\n%s", diff)
	}
	delete(data, "row")
	if err := json.Unmarshal(r.Raw(), &header); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(header, data); diff != "" {
		t.Errorf("data without row and the bus header (-header +data):\n%s", diff)
	}
}

// The SDK has no type for a batch: it is an array of events, and each must be one.
func TestBatchOfEvents(t *testing.T) {
	f := cloudEvents{}
	var parts [][]byte
	for _, m := range []interface{ Topic() msg.Topic }{aReading(), aDetection(), aFile()} {
		parts = append(parts, encode(t, f, of(t, m)))
	}
	var events []json.RawMessage
	if err := json.Unmarshal(f.Batch().Join(parts), &events); err != nil || len(events) != 3 {
		t.Fatalf("a batch has %d events, %v; want 3", len(events), err)
	}
	for i, kind := range []string{"reading", "detection", "file"} {
		if e := anEvent(t, events[i]); e.Type() != eventType+kind {
			t.Errorf("event %d has type %s; want %s", i, e.Type(), eventType+kind)
		}
	}
}

func TestEventOfAnUntrueTimeHasNone(t *testing.T) {
	reading := aReading()
	reading.Synced = false
	e := anEvent(t, encode(t, cloudEvents{}, of(t, reading)))
	if !e.Time().IsZero() || e.Extensions()["synced"] != false {
		t.Errorf("time %v, synced %v; want no time, and false", e.Time(), e.Extensions()["synced"])
	}
}

// What a node may be called need not be allowed in a URI or an attribute.
func TestEventOfAnOddNode(t *testing.T) {
	reading := aReading()
	reading.Node = "Gärten? #3/ü €\u0085\ufdd0"
	e := anEvent(t, encode(t, cloudEvents{}, of(t, reading)))
	if want := "/perch/G%C3%A4rten%3F%20%233%2F%C3%BC%20%E2%82%AC%C2%85%EF%B7%90/air"; e.Source() != want {
		t.Errorf("source = %s; want %s", e.Source(), want)
	}
	if want := "Gärten? #3/ü €%C2%85%EF%B7%90"; e.Extensions()["node"] != want || !strings.HasPrefix(e.ID(), want+"/air/") {
		t.Errorf("node = %v, id = %s; want %s", e.Extensions()["node"], e.ID(), want)
	}
}

// A publisher's own key named row is not written twice.
func TestEventKeepsAPublishersRow(t *testing.T) {
	r := of(t, aReading())
	text := strings.Replace(string(r.Raw()), `"columns"`, `"row":7,"columns"`, 1)
	own, err := record.Parse(r.Topic(), []byte("\n "+text))
	if err != nil {
		t.Fatal(err)
	}
	e := anEvent(t, encode(t, cloudEvents{}, &own))
	if n := strings.Count(string(e.Data()), `"row"`); n != 1 || !strings.Contains(string(e.Data()), `"row":7`) {
		t.Errorf("data = %s; want the publisher's row alone", e.Data())
	}
}
