package msg

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
)

// docs/PROTOCOL.md is for people who have no Go: what stands there is what
// this package does, or a test here fails.

func text(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const protocolFile = "../../docs/PROTOCOL.md"

// fence is the block of the manual that begins with ``` and these words.
func fence(t *testing.T, words string) string {
	t.Helper()
	_, after, found := strings.Cut(text(t, protocolFile), "\n```"+words+"\n")
	block, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatalf("%s has no block %q", protocolFile, words)
	}
	return block
}

// example opens the bus of one worker of the manual's box, at its moment.
func example(t *testing.T, run, dir string, name Source) (*Publisher, Stamp) {
	t.Helper()
	at := Stamp{Wall: time.Date(2026, 5, 17, 9, 41, 7, 250_000_000, time.UTC), Boot: 43_223_250 * time.Millisecond, Synced: true}
	c := clock.Fixed("5f0c8f2e-6d0a-4c51-9d3c-0f4f6f0f9a11", func() Stamp { return at })
	b, err := Open(Config{Node: "airpi-01", Name: name, RunDir: run, ShmDir: dir, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := b.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	p.epoch = 0x000283baec0033c3
	return p, at
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func publishReading(t *testing.T, p *Publisher, at Stamp) {
	s, err := p.Readings("environment", []string{"temperature_c", "pressure_pa", "humidity_pct"}, Retention{})
	check(t, err)
	_, err = s.Publish(at, []float64{21.484375, 100653.25, math.NaN()}, map[string]string{"humidity_pct": "sensor says 0"})
	check(t, err)
}

func publishDescriptor(t *testing.T, p *Publisher, at Stamp) {
	planes, size, err := pixel.Layout(pixel.YUV420, pixel.Size{Width: 640, Height: 480})
	check(t, err)
	f, err := p.Frames("video", Geometry{Format: "yuv420", Width: 640, Height: 480, Planes: planes, Hz: 30}, 4, size)
	check(t, err)
	hasSubscribed(t, f.Gate, "look")
	slot, err := f.Claim()
	check(t, err)
	_, err = slot.Publish(size, at)
	check(t, err)
}

func publishDetection(t *testing.T, p *Publisher, at Stamp) {
	s, err := p.Detections("objects", Retention{})
	check(t, err)
	_, err = s.Publish(at, Detection{FrameSource: "porch", FrameEpoch: 0x000282fe18281a71, FrameSeq: 1290, FrameTime: Time{at.Wall}, FrameBootNS: int64(at.Boot),
		CoveredUntil: int64(at.Boot), Objects: []Object{{Label: "person", Score: 0.875, Box: [4]float64{212, 96.5, 301, 402}}}})
	check(t, err)
}

func publishFile(t *testing.T, p *Publisher, at Stamp) {
	s, err := p.Files("files", Retention{})
	check(t, err)
	_, err = s.Publish(at, "porch-clips_20260517T094057Z_000283baec0033c3-000012", "born",
		json.RawMessage(`{"v":1,"name":"porch-clips_20260517T094057Z_000283baec0033c3-000012.mp4","media":"video/mp4","bytes":1482112}`))
	check(t, err)
}

func publishState(t *testing.T, p *Publisher, at Stamp) {
	s, err := p.States("state")
	check(t, err)
	check(t, s.Publish(at, State{Program: "csvwriter", PID: 4711, Ready: true, Status: "writing air-csv.csv", ProgressNS: int64(at.Boot),
		Counters: map[string]uint64{"rows": 86400, "files": 1}, Gauges: map[string]float64{"free_bytes": 11811160064},
		Sources:   []Account{{Topic: "reading/air/environment", Epoch: 0x000283baec0033c3, Sent: 1343, Received: 1340, Repaired: 3}},
		Published: map[Topic]uint64{"file/air-csv/files": 1, "state/air-csv/state": 43200}, Dropped: map[Topic]uint64{"file/air-csv/files": 0},
		Subscribers: []string{"send"}}))
}

func TestExamplesOfTheManual(t *testing.T) {
	t.Parallel()
	run, dir := folders(t)
	for _, c := range []struct {
		kind    Kind
		name    Source
		publish func(*testing.T, *Publisher, Stamp)
	}{
		{KindReading, "air", publishReading},
		{KindFrame, "porch", publishDescriptor},
		{KindDetection, "porch-objects", publishDetection},
		{KindFile, "porch-clips", publishFile},
		{KindState, "air-csv", publishState},
	} {
		l, err := Listen(string(c.kind)+"/", "hello/look")
		check(t, err)
		p, at := example(t, run, dir, c.name)
		endpoint, err := Endpoint(run, c.name, "")
		if c.kind == KindFrame {
			endpoint, err = Endpoint(run, c.name, "video")
		}
		check(t, err, l.Connect(endpoint))
		if c.kind != KindFrame { // which has an endpoint and a gate of its own
			hasSubscribed(t, p.Gate, "look")
		}
		c.publish(t, p, at)
		m, _, err := l.Next(soon(t), time.Time{})
		if err != nil {
			t.Fatalf("%s: %v", c.kind, err)
		}
		check(t, l.Close())
		if got, want := fmt.Sprintf("%s\n%s\n", m.Topic(), m.Raw()), fence(t, "text "+string(c.kind)); got != want {
			t.Errorf("%s says that a %s is\n%s\nthis package sends\n%s", protocolFile, c.kind, want, got)
		}
		if _, err := readBody(&m); err != nil {
			t.Errorf("body of the example: %v", err)
		}
	}
	d, err := shm.OpenDir(dir)
	check(t, err)
	defer d.Close()
	meta, err := d.Meta("porch.video")
	check(t, err)
	if got, want := string(meta)+"\n", fence(t, "text meta"); got != want {
		t.Errorf("%s says that the meta is\n%s\nthis package writes\n%s", protocolFile, want, got)
	}
}

// Every key that a message can have is explained in both manuals.
func TestManualsNameEveryKey(t *testing.T) {
	long, short := text(t, protocolFile), text(t, "doc.go")
	for _, body := range []any{Reading{}, FrameMessage{}, Detection{}, File{}, State{}, Account{}, Object{}, ringMeta{}, pixel.Plane{}} {
		for _, key := range keys(reflect.TypeOf(body)) {
			if !strings.Contains(long, "`"+key+"`") {
				t.Errorf("%s does not explain %s of %T", protocolFile, key, body)
			}
			if !regexp.MustCompile(`\b` + key + `\b`).MatchString(short) {
				t.Errorf("doc.go does not explain %s of %T", key, body)
			}
		}
	}
}

func keys(t reflect.Type) (list []string) {
	for f := range t.Fields() {
		if f.Anonymous {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			list = append(list, keys(inner)...)
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		list = append(list, key)
	}
	return list
}

// The limits stand in both manuals, as numbers.
func TestManualsNameEveryLimit(t *testing.T) {
	long, short := text(t, protocolFile), text(t, "doc.go")
	for name, limit := range map[string]string{
		"topic":   fmt.Sprint(maxTopic),
		"header":  fmt.Sprint(maxHeader),
		"payload": fmt.Sprint(maxPayload),
		"keys":    fmt.Sprint(maxKeys),
		"label":   fmt.Sprint(maxLabel),
		"columns": fmt.Sprint(maxColumns),
		"file id": fmt.Sprint(maxID),
		"path":    fmt.Sprint(maxIPCPath),
		"queue":   fmt.Sprint(queue),
		"history": fmt.Sprint(DefaultHistory),
		"message": fmt.Sprint(DefaultMessageBytes),
		"seq":     "2^53-1",
		"slots":   "2^20-1",
		"frame":   "2^30",
		"side":    fmt.Sprint(pixel.MaxSide),
	} {
		word := regexp.MustCompile(`(^|[^0-9])` + regexp.QuoteMeta(limit) + `([^0-9]|$)`)
		if !word.MatchString(long) || !word.MatchString(short) {
			t.Errorf("limit on %s: %s stands in the long manual: %v, the short one: %v; want both", name, limit, word.MatchString(long), word.MatchString(short))
		}
	}
}

// section is the indented block of a package comment that begins with those words.
func section(t *testing.T, path, first, last string) string {
	t.Helper()
	_, after, found := strings.Cut(text(t, path), "//\t"+first)
	if !found {
		t.Fatalf("%s has no line that begins with %q", path, first)
	}
	block, _, _ := strings.Cut(after, last)
	return strings.ReplaceAll(first+block, "\n//\t", "\n")
}

// The ring's layout and the frame number's are settled in other packages: the
// manual has their words.
func TestManualHasTheTablesOfOtherPackages(t *testing.T) {
	for path, block := range map[string]string{
		"../shm/doc.go":                 section(t, "../shm/doc.go", "offset  type ", "\n//\n"),
		"../../internal/scene/scene.go": section(t, "../../internal/scene/scene.go", "row 0 ", "\n//\n"),
		"internal/scene, cell size":     section(t, "../../internal/scene/scene.go", "c = 8 ", "\n//\n"),
	} {
		if !strings.Contains(text(t, protocolFile), block) {
			t.Errorf("%s lacks this of %s:\n%s", protocolFile, path, block)
		}
	}
}
