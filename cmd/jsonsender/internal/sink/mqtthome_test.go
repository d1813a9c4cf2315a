package sink

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/boxtest"
)

const homeConfig = "homeassistant/device/shed_20_232/config"

// startHome is a sink whose format is Home Assistant's.
func startHome(t *testing.T, broker *boxtest.Mosquitto, cfg format.HomeConfig) *MQTT {
	t.Helper()
	cfg.Node, cfg.Prefix, cfg.Discovery, cfg.Log = "shed #2", "perch", "homeassistant", slog.New(slog.DiscardHandler)
	home, err := format.NewHome(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := mqttOptions(t, "mqtt://"+broker.Address)
	o.Companion = home
	m := newMQTT(t, o)
	m.attend = 10 * time.Millisecond
	one := mqttReading(t, 1)
	if one.Body, err = home.Encode(one.Record); err != nil {
		t.Fatal(err)
	}
	deliverMQTT(t, m, []Item{one})
	return m
}

// platforms are the components of the retained announcement.
func platforms(t *testing.T, broker *boxtest.Mosquitto) map[string]string {
	t.Helper()
	var all struct {
		Components map[string]map[string]any `json:"components"`
	}
	text := broker.Retained(homeConfig)
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("announcement %q: %v", text, err)
	}
	found := map[string]string{}
	for key, c := range all.Components {
		found[key], _ = c["platform"].(string)
	}
	return found
}

func TestHomeAssistant(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	sub := broker.Subscribe("#", "%r %t")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "latest.jpg"), []byte("jpeg"), 0o600); err != nil {
		t.Fatal(err)
	}
	soil := format.HomeStream{Source: "soil", Stream: "soil", Columns: []string{"soil_moisture_pct"}}
	first := startHome(t, broker, format.HomeConfig{
		Streams: []format.HomeStream{soil}, Picture: &format.Picture{Source: "pics", Dir: dir, File: "latest.jpg"},
	})
	boxtest.Poll(t, "the announcement", func() bool {
		p := platforms(t, broker)
		return p["soil.soil.soil_moisture_pct"] == "sensor" && p["air.environment.n"] == "sensor" && p["pics"] == "image"
	})
	wantRetained(t, broker, "perch/shed %232/air/status", format.Online)
	wantRetained(t, broker, "perch/shed %232/soil/status", format.Offline)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	wantRetained(t, broker, statusTopic, format.Offline)

	// Without the sensor of soil; what was announced before is read from the broker.
	startHome(t, broker, format.HomeConfig{})
	boxtest.Poll(t, "the sensor to be taken out", func() bool {
		p := platforms(t, broker)
		return len(p) == 1 && p["air.environment.n"] == "sensor"
	})

	announcements := func() (n int) {
		for _, line := range sub.Lines() {
			if line == "0 "+homeConfig {
				n++
			}
		}
		return n
	}
	before := announcements()
	host, port, err := net.SplitHostPort(broker.Address)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mosquitto_pub", "-h", host, "-p", port, "-t", "homeassistant/status", "-m", format.Online).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub = %v: %s", err, out)
	}
	boxtest.Poll(t, "the announcement after Home Assistant's start", func() bool { return announcements() > before })
}

// A broker that was restarted without its memory gets all of it again.
func TestHomeAssistantBrokerRestarts(t *testing.T) {
	t.Parallel()
	broker := boxtest.StartMosquitto(t, "")
	m := startHome(t, broker, format.HomeConfig{})
	boxtest.Poll(t, "the announcement", func() bool { return len(platforms(t, broker)) == 1 })
	l := m.link
	broker.Kill()
	<-l.broken
	broker.Start()
	deliverMQTT(t, m, mqttItems(t, 1))
	boxtest.Poll(t, "the announcement again", func() bool { return len(platforms(t, broker)) == 1 })
	wantRetained(t, broker, "perch/shed %232/air/status", format.Online)
	wantRetained(t, broker, statusTopic, format.Online)
}
