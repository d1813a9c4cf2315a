package main

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/pkg/topology"
)

// load is a topology, and its entry home with the settings that stand there.
func load(t *testing.T, text string) (*topology.Topology, *topology.Entry, Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "box.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := topology.Load(file, topology.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	if ps := top.Entry("home").Table.Bind(&cfg, "program", "source"); len(ps) > 0 {
		t.Fatal(ps)
	}
	return top, top.Entry("home"), cfg
}

func shippedHome(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/homeassistant.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHomeOfTheShippedTopology(t *testing.T) {
	t.Parallel()
	top, entry, cfg := load(t, shippedHome(t))
	home, err := cfg.newHome(top, entry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	home.Connected(now)
	var found []string
	for _, p := range home.Due(now.Add(time.Minute)) {
		if p.Topic != "homeassistant/device/demo/config" {
			continue
		}
		var all struct {
			Components map[string]struct {
				Expire int `json:"expire_after"`
			} `json:"components"`
		}
		if err := json.Unmarshal(p.Body, &all); err != nil {
			t.Fatal(err)
		}
		found = slices.Sorted(maps.Keys(all.Components))
		if got := all.Components["air.environment.humidity_pct"].Expire; got != 30 {
			t.Errorf("expire_after = %d; want 30, three times every", got)
		}
	}
	want := []string{"air.environment.humidity_pct", "air.environment.pressure_pa", "air.environment.temperature_c", "porch-pictures"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
}

func TestHomePicture(t *testing.T) {
	t.Parallel()
	for old, words := range map[string]string{
		`picture = "porch-pictures"`:          "",
		`picture = "porch-picture"`:           "porch-pictures",
		`picture = "air"`:                     "want a worker that runs jpegwriter",
		`picture = "porch-pictures" # latest`: "keeps no newest picture",
	} {
		text := strings.Replace(shippedHome(t), `picture = "porch-pictures"`, old, 1)
		if strings.HasSuffix(old, "latest") {
			text = strings.Replace(text, `every = "4s"`, `latest = ""`, 1)
		}
		top, entry, cfg := load(t, text)
		_, err := cfg.newHome(top, entry, nil)
		if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("newHome() with %s = %v; want %q", old, err, words)
		}
	}
}

// docs/RECEIVERS.md shows settings that are some.
func TestDocumentedSettings(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"toml records", "toml mqtt", "toml home"} {
		text := boxtest.Documented(t, "RECEIVERS.md", language)[0]
		top := struct{ Worker map[string]Config }{}
		meta, err := toml.Decode(text, &top)
		if err != nil {
			t.Errorf("Decode() = %v of\n%s", err, text)
		}
		for _, key := range meta.Undecoded() {
			if last := key[len(key)-1]; last != "program" && last != "source" {
				t.Errorf("%s is no setting, in\n%s", key, text)
			}
		}
	}
}
