package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// home is a box with all that there is to announce.
func home(t *testing.T, change func(*HomeConfig)) *Home {
	t.Helper()
	cfg := HomeConfig{
		Node: "shed #2", Prefix: "perch", Discovery: "homeassistant", Version: "0.1", Area: "Garden",
		Streams: []HomeStream{
			{"air", "environment", time.Second, []string{"temperature_c", "pressure_pa", "humidity_pct"}},
			{"mast", "wind", time.Minute, nil},
		},
		Detectors: []HomeDetector{{"porch-objects", "objects", []string{"person", "cat"}}},
		Picture:   &Picture{Source: "porch-pictures", Dir: t.TempDir(), File: "latest.jpg"},
		Log:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := NewHome(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var start = time.Date(2026, 5, 17, 9, 40, 57, 0, time.UTC)

func parse(t *testing.T, topic msg.Topic, seq int, at time.Time, body string) *record.Record {
	t.Helper()
	kind, source, stream, err := topic.Split()
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Parse(topic, fmt.Appendf(nil, `{"v":1,"kind":%q,"node":"shed #2","source":%q,"stream":%q,"epoch":"00000000000000a1",`+
		`"boot_id":"7f5e26a4-36a5-4d8c-9a0c-111111111111","seq":%d,"time":%q,"boot_ns":5,"synced":true,%s}`, kind, source, stream, seq, msg.Time{Time: at}, body))
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// bodies are the publications of a topic.
func bodies(list []Publication, topic string) (found []string) {
	for _, p := range list {
		if p.Topic == topic {
			found = append(found, string(p.Body))
		}
	}
	return found
}

const configTopic = "homeassistant/device/shed_20_232/config"

// components are the keys of an announcement, with the number of their keys.
func components(t *testing.T, body string) map[string]int {
	t.Helper()
	var all struct {
		Components map[string]map[string]any `json:"components"`
	}
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatalf("announcement %q: %v", body, err)
	}
	found := map[string]int{}
	for key, c := range all.Components {
		found[key] = len(c)
	}
	return found
}

func TestAnnouncement(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	h.Connected(start)
	if list := h.Due(start); len(bodies(list, configTopic)) > 0 {
		t.Error("it is announced before what was announced is read; want a pause")
	}
	list := h.Due(start.Add(readBack))
	if got := bodies(list, configTopic); len(got) != 1 {
		t.Fatalf("announcements = %q; want one", got)
	}
	for _, p := range list {
		if p.Topic == configTopic {
			wantValid(t, p)
		}
	}
	var all struct {
		Components map[string]json.RawMessage `json:"components"`
	}
	if err := json.Unmarshal([]byte(bodies(list, configTopic)[0]), &all); err != nil {
		t.Fatal(err)
	}
	want := `{"availability":[{"topic":"perch/shed %232/status"},{"topic":"perch/shed %232/air/status"}],"availability_mode":"all",` +
		`"device_class":"humidity","expire_after":10,"name":"Air humidity","platform":"sensor","qos":1,"state_class":"measurement",` +
		`"state_topic":"perch/shed %232/air/environment","unique_id":"perch.shed_20_232.air.environment.humidity_pct","unit_of_measurement":"%",` +
		`"value_template":"{{ value_json[\"humidity_pct\"] | default(none) }}"}`
	if diff := cmp.Diff(want, string(all.Components["air.environment.humidity_pct"])); diff != "" {
		t.Errorf("component (-want +got):\n%s", diff)
	}
	if list := h.Due(start.Add(time.Minute)); len(list) > 0 {
		t.Errorf("Due() with nothing new = %v; want nothing", list)
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	now := time.Now()
	h.Connected(now)
	if got := bodies(h.Due(now), "perch/shed %232/air/status"); len(got) != 1 || got[0] != Offline {
		t.Errorf("status of a sensor without data = %q; want %q", got, Offline)
	}
	body, err := h.Encode(parse(t, "reading/air/environment", 1, now, `"columns":["temperature_c","pressure_pa","humidity_pct"],`+
		`"values":[21.5,null,99],"bad":{"humidity_pct":"out of range"}`))
	if want := `{"temperature_c":21.5,"pressure_pa":null,"humidity_pct":null}`; err != nil || string(body) != want {
		t.Errorf("Encode() = %s, %v; want %s", body, err, want)
	}
	now = time.Now()
	if got := bodies(h.Due(now), "perch/shed %232/air/status"); len(got) != 1 || got[0] != Online {
		t.Errorf("status of a sensor with data = %q; want %q", got, Online)
	}
	if got := bodies(h.Due(now.Add(11*time.Second)), "perch/shed %232/air/status"); len(got) != 1 || got[0] != Offline {
		t.Errorf("status of a sensor whose data ended = %q; want %q", got, Offline)
	}
	for _, r := range []*record.Record{
		parse(t, "state/air/state", 1, now, `"program":"a","pid":1,"ready":true,"status":"","progress_ns":1,"counters":{}`),
		parse(t, "file/porch-clips/files", 1, now, `"id":"porch-clips_20260517T094057Z_000283baec0033c3-000042","state":"born","sidecar":null`),
	} {
		if body, err := h.Encode(r); !errors.Is(err, ErrSkip) {
			t.Errorf("Encode() of a %s = %s, %v; want it skipped", r.Kind, body, err)
		}
	}
}

func TestColumnsAreLearned(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	h.Connected(start)
	h.Received(configTopic, []byte(`{"components":{"mast.wind.wind_m_s":{"platform":"sensor","name":"Mast wind"}}}`), start)
	first := bodies(h.Due(start), configTopic)
	if len(first) != 1 || components(t, first[0])["mast.wind.wind_m_s"] != 0 {
		t.Errorf("announcements = %q; want one, that takes nothing out of a stream whose columns are not known", first)
	}
	now := time.Now()
	if _, err := h.Encode(parse(t, "reading/mast/wind", 1, now, `"columns":["wind_m_s","wind_deg"],"values":[3,270]`)); err != nil {
		t.Fatal(err)
	}
	got := bodies(h.Due(time.Now()), configTopic)
	if len(got) != 1 || components(t, got[0])["mast.wind.wind_m_s"] < 5 || components(t, got[0])["mast.wind.wind_deg"] < 5 {
		t.Errorf("announcements after the first reading = %q; want its columns", got)
	}
}

func TestWhatIsGoneIsTakenOut(t *testing.T) {
	t.Parallel()
	before := home(t, func(c *HomeConfig) {
		c.Streams = append(c.Streams, HomeStream{"soil", "soil", time.Minute, []string{"soil_moisture_pct"}})
	})
	before.Connected(start)
	was := bodies(before.Due(start.Add(readBack)), configTopic)[0]

	h := home(t, nil)
	h.Connected(start)
	h.Received(configTopic, []byte(was), start)
	got := bodies(h.Due(start), configTopic)
	if len(got) != 2 {
		t.Fatalf("announcements = %q; want one that takes out, and one without", got)
	}
	if one := components(t, got[0]); one["soil.soil.soil_moisture_pct"] != 1 || one["air.environment.temperature_c"] < 5 {
		t.Errorf("first announcement has %v; want the platform alone of what is gone", one)
	}
	if two := components(t, got[1]); two["soil.soil.soil_moisture_pct"] != 0 || two["air.environment.temperature_c"] < 5 {
		t.Errorf("second announcement has %v; want nothing of what is gone", two)
	}
	for _, body := range got { // as a broker of MQTT 3.1.1 gives them back
		h.Received(configTopic, []byte(body), start)
	}
	if list := bodies(h.Due(start.Add(time.Hour)), configTopic); len(list) > 0 {
		t.Errorf("announcements after its own came back = %q; want none", list)
	}

	empty := home(t, func(c *HomeConfig) { c.Streams, c.Detectors, c.Picture = nil, nil, nil })
	empty.Connected(start)
	empty.Received(configTopic, []byte(was), start)
	if got := bodies(empty.Due(start), configTopic); len(got) != 2 || got[1] != "" {
		t.Errorf("announcements of a box with nothing = %q; want all taken out, then nothing retained", got)
	}
}

func TestHomeAssistantRestarts(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	h.Connected(start)
	h.Due(start.Add(readBack))
	h.Received("homeassistant/status", []byte(Offline), start.Add(time.Hour))
	if list := h.Due(start.Add(time.Hour)); len(list) > 0 {
		t.Errorf("Due() when Home Assistant went offline = %v; want nothing", list)
	}
	h.Received("homeassistant/status", []byte(Online), start.Add(time.Hour))
	list := h.Due(start.Add(time.Hour + spread))
	if len(bodies(list, configTopic)) != 1 || len(bodies(list, "perch/shed %232/air/status")) != 1 {
		t.Errorf("Due() when Home Assistant came back = %v; want the announcement, and the sensors' status", list)
	}
}

func TestNonsenseWasAnnounced(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "null", "[]", "x", `{"components":[]}`, `{"components":{"a":1}}`, `{"components":{"a":{"platform":7,"b":1}}}`} {
		h := home(t, nil)
		h.Connected(start)
		h.Received(configTopic, []byte(body), start)
		if got := bodies(h.Due(start), configTopic); len(got) != 1 {
			t.Errorf("announcements after %q was read = %q; want one", body, got)
		}
	}
}

func TestDetection(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	detection := func(seq int, after time.Duration, more string) string {
		r := parse(t, "detection/porch-objects/objects", seq, start.Add(after), `"frame_source":"porch","frame_epoch":"00000000000000a1","frame_seq":1,`+
			`"frame_time":"2026-05-17T09:40:57.000000000Z","frame_boot_ns":5,"covered_until":5,`+more)
		body, err := h.Encode(r)
		if errors.Is(err, ErrSkip) {
			return "skipped"
		}
		var e struct {
			Type    string   `json:"event_type"`
			Label   string   `json:"label"`
			Objects []string `json:"objects"`
		}
		if err != nil || json.Unmarshal(body, &e) != nil {
			t.Fatalf("Encode() = %s, %v", body, err)
		}
		return fmt.Sprint(e.Type, " ", e.Label, " ", e.Objects)
	}
	object := func(label string, score float64) string {
		return fmt.Sprintf(`{"label":%q,"score":%g,"box":[0,0,1,1]}`, label, score)
	}
	both := `"objects":[` + object("cat", 0.5) + "," + object("person", 0.9) + `]`
	for i, c := range []struct {
		seq   int
		after time.Duration
		more  string
		want  string
	}{
		{0, 0, `"objects":[]`, "skipped"},
		{1, time.Second, both, "person person [person cat]"},
		{1, time.Second, both, "person person [person cat]"}, // sent again
		{2, 2 * time.Second, both, "cat cat [person cat]"},
		{3, 3 * time.Second, both, "skipped"},
		{4, 4 * time.Second, `"objects":[` + object("dog", 0.4) + `]`, "other dog [dog]"},
		{5, 60 * time.Second, `"gate":"still",` + both, "skipped"},
		{6, 61 * time.Second, `"objects":[` + object("dog", 0.4) + `]`, "dog dog [dog]"}, // announced since
	} {
		if got := detection(c.seq, c.after, c.more); got != c.want {
			t.Errorf("detection %d = %s; want %s", i, got, c.want)
		}
	}
	got := bodies(h.Due(time.Now()), configTopic)
	if len(got) != 1 || !strings.Contains(got[0], `"event_types":["other","person","cat","dog"]`) {
		t.Errorf("announcements after a new label = %q; want it in them", got)
	}
}

func TestLate(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	for _, c := range []struct {
		topic msg.Topic
		age   time.Duration
		want  bool
	}{
		{"reading/air/environment", 9 * time.Second, false},
		{"reading/air/environment", 11 * time.Second, true},
		{"reading/mast/wind", 179 * time.Second, false}, // three periods
		{"reading/mast/wind", 181 * time.Second, true},
		{"reading/new/stream", 11 * time.Second, true},
		{"reading/air/environment", -time.Hour, false}, // the clock was set back
	} {
		r := parse(t, c.topic, 1, start, `"columns":["n"],"values":[1]`)
		if got := h.Late(r, start.Add(c.age)); got != c.want {
			t.Errorf("Late(%s, %s old) = %v; want %v", c.topic, c.age, got, c.want)
		}
	}
	var _ Latecomer = h
	var _ Companion = h
}

func TestPicture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "latest.jpg")
	h := home(t, func(c *HomeConfig) {
		c.Picture = &Picture{Source: "porch-pictures", Dir: dir, File: "latest.jpg", Most: 10}
	})
	h.Connected(start)
	const topic = "perch/shed %232/porch-pictures/latest.jpg"
	write := func(text string, at time.Time) []string {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
		return bodies(h.Due(start), topic)
	}
	for i, c := range []struct {
		got  []string
		want string
	}{
		{bodies(h.Due(start), topic), "[]"}, // none yet
		{write("one", start), "[one]"},
		{bodies(h.Due(start), topic), "[]"},
		{write("two", start.Add(time.Second)), "[two]"},
		{write("larger than it may be", start.Add(2*time.Second)), "[]"},
		{write("three", start.Add(3*time.Second)), "[three]"},
	} {
		if got := fmt.Sprint(c.got); got != c.want {
			t.Errorf("picture %d = %s; want %s", i, got, c.want)
		}
	}
	// A link that leads out of the folder is no picture.
	outside := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.Remove(file), os.Symlink(outside, file)); err != nil {
		t.Fatal(err)
	}
	if got := bodies(h.Due(start), topic); len(got) > 0 {
		t.Errorf("picture through a link = %q; want none", got)
	}
}

func TestStreamCalledStatus(t *testing.T) {
	t.Parallel()
	if _, err := NewHome(HomeConfig{Streams: []HomeStream{{Source: "air", Stream: "status"}}}); err == nil {
		t.Error("NewHome() with a stream called status = nil; want an error")
	}
}

func TestTopicWords(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"airpi-01": {"airpi-01", "airpi-01"}, "shed #2": {"shed %232", "shed_20_232"}, "a/b+c": {"a%2Fb%2Bc", "a_2Fb_2Bc"},
		"50%": {"50%25", "50_25"}, "a_b": {"a_b", "a_5Fb"}, "Hütte": {"Hütte", "H_C3_BCtte"}, "a\u0085b": {"a%C2%85b", "a_C2_85b"},
	} {
		if got := [2]string{TopicWord(name), ObjectID(name)}; got != want {
			t.Errorf("TopicWord, ObjectID(%q) = %q; want %q", name, got, want)
		}
	}
}
