package sink

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/msg"
)

// reading is a record with a body of its own.
func mqttReading(t *testing.T, n int) Item {
	t.Helper()
	return mqttItem(t, "reading/air/environment", n, `"columns":["n"],"values":[1]`)
}

func mqttItem(t *testing.T, topic msg.Topic, n int, body string) Item {
	t.Helper()
	kind, source, stream, err := topic.Split()
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Parse(topic, fmt.Appendf(nil, `{"v":1,"kind":%q,"node":"shed #2","source":%q,"stream":%q,"epoch":"00000000000000a1",`+
		`"boot_id":"7f5e26a4-36a5-4d8c-9a0c-111111111111","seq":%d,"time":"2026-05-17T09:40:57.000000000Z","boot_ns":5,"synced":true,%s}`,
		kind, source, stream, n, body))
	if err != nil {
		t.Fatal(err)
	}
	return Item{Record: &r, Body: fmt.Appendf(nil, `{"n":%d}`, n)}
}

func mqttItems(t *testing.T, n int) (list []Item) {
	t.Helper()
	for i := range n {
		list = append(list, mqttReading(t, i))
	}
	return list
}

// options are those of a sink of mqtt://ADDRESS.
func mqttOptions(t *testing.T, to string) Options {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		To: u, Node: "shed #2", Worker: "send", Prefix: "perch", Stall: 10 * time.Second, Records: 500, Bytes: 1 << 20,
		Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler), TLS: func() (*tls.Config, error) { return &tls.Config{}, nil },
	}
}

func newMQTT(t *testing.T, o Options) *MQTT {
	t.Helper()
	m, err := NewMQTT(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// deliver wants all to be acknowledged.
func deliverMQTT(t *testing.T, m *MQTT, list []Item) {
	t.Helper()
	results, err := m.Deliver(context.Background(), list)
	if err != nil {
		t.Fatalf("Deliver() = %v", err)
	}
	for i, r := range results {
		if r.State != Acknowledged {
			t.Fatalf("Deliver() = %+v for item %d; want it acknowledged", r, i)
		}
	}
}

func TestMosquitto(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	sub := broker.Subscribe("perch/#", "%r %t %P %p")
	m := newMQTT(t, mqttOptions(t, "mqtt://"+broker.Address))
	state := mqttItem(t, "state/supervisor/box", 0, `"program":"supervisor","pid":1,"ready":true,"status":"","progress_ns":1,"counters":{}`)
	deliverMQTT(t, m, append(mqttItems(t, 100), state))
	boxtest.Poll(t, "all messages", func() bool { return len(readingLines(sub)) == 100 })
	for i, line := range readingLines(sub) {
		want := fmt.Sprintf(`0 perch/shed %%232/air/environment id:shed #2/air/environment/00000000000000a1/%d {"n":%d}`, i, i)
		if line != want {
			t.Errorf("message %d = %s; want %s", i, line, want)
		}
	}
	wantRetained(t, broker, "perch/shed %232/supervisor/box", `{"n":0}`)
	wantRetained(t, broker, "perch/shed %232/status", format.Online)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	wantRetained(t, broker, "perch/shed %232/status", format.Offline)
	if _, err := m.Deliver(context.Background(), mqttItems(t, 1)); err == nil {
		t.Error("Deliver() after Close() = nil; want an error")
	}
}

// readings are the lines of messages of the air sensor.
func readingLines(sub *boxtest.MosquittoSub) (lines []string) {
	for _, line := range sub.Lines() {
		if strings.Contains(line, "/air/environment ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// wantRetained waits until a broker gives that message to those that subscribe.
func wantRetained(t *testing.T, broker *boxtest.Mosquitto, topic, body string) {
	t.Helper()
	boxtest.Poll(t, topic+" = "+body, func() bool { return broker.Retained(topic) == body })
}
