package sidecar

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

func at(s string) msg.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return msg.Time{Time: t}
}

func example() *Sidecar {
	id := NewID("air-csv", time.Date(2026, 3, 1, 23, 59, 58, 5, time.FixedZone("", 3600)), 0x0000a1b2c3d4e5f6, 7)
	return &Sidecar{Version: 1, ID: id, Name: string(id) + ".csv", Media: "text/csv", Node: "box", ResponsibleParty: "River Lab",
		Worker: "air-csv", Program: "csvwriter 0.1", Source: "reading/air/environment",
		Device: &topology.Device{Manufacturer: "Bosch", Model: "BME280"},
		Start:  Moment{Time: at("2026-03-01T00:00:00.5Z"), BootNS: 5, BootID: "b", Synced: true, Epoch: 1, Seq: 2},
		End:    Moment{Time: at("2026-03-01T23:59:59Z"), BootNS: 9, BootID: "b", Epoch: 1, Seq: 90},
		Items:  89, Bytes: 1234, SHA256: strings.Repeat("0a", 32),
		History: []Event{{State: "ready", Time: at("2026-03-02T00:00:00Z"), BootNS: 11, BootID: "b", By: "air-csv", Reason: "the date changed"}}}
}

// The text is the format: other programs read it.
func TestEncodeIsTheDocumentedText(t *testing.T) {
	const want = `{
  "v": 1,
  "id": "air-csv_20260301T225958Z_0000a1b2c3d4e5f6-000007",
  "name": "air-csv_20260301T225958Z_0000a1b2c3d4e5f6-000007.csv",
  "media": "text/csv",
  "node": "box",
  "responsible_party": "River Lab",
  "worker": "air-csv",
  "program": "csvwriter 0.1",
  "source": "reading/air/environment",
  "device": {
    "manufacturer": "Bosch",
    "model": "BME280"
  },
  "start": {
    "time": "2026-03-01T00:00:00.500000000Z",
    "boot_ns": 5,
    "boot_id": "b",
    "synced": true,
    "epoch": "0000000000000001",
    "seq": 2
  },
  "end": {
    "time": "2026-03-01T23:59:59.000000000Z",
    "boot_ns": 9,
    "boot_id": "b",
    "synced": false,
    "epoch": "0000000000000001",
    "seq": 90
  },
  "items": 89,
  "bytes": 1234,
  "sha256": "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
  "history": [
    {
      "state": "ready",
      "time": "2026-03-02T00:00:00.000000000Z",
      "boot_ns": 11,
      "boot_id": "b",
      "synced": false,
      "by": "air-csv",
      "reason": "the date changed"
    }
  ]
}
`
	text, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("Encode() (-want +got):\n%s", diff)
	}
	got, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got); diff != "" {
		t.Errorf("Decode(Encode()) (-want +got):\n%s", diff)
	}
	if got.State() != "ready" || (&Sidecar{}).State() != "" {
		t.Errorf("State() = %q, and %q without a history; want ready and nothing", got.State(), (&Sidecar{}).State())
	}
}

// What the topology does not give is absent, and 0 is not absent.
func TestLocationIsTheDocumentedText(t *testing.T) {
	zero := 0.0
	for _, tt := range []struct {
		at   topology.Location
		want string
	}{
		{topology.Location{}, ""},
		{topology.Location{Position: &topology.Position{}}, `"location": {"latitude": 0, "longitude": 0},`},
		{topology.Location{Position: &topology.Position{Latitude: -33.8568, Longitude: 1e-7, HeightM: &zero}, Timezone: "Australia/Sydney", Site: "weir <1>"},
			`"location": {"latitude": -33.8568, "longitude": 1e-7, "height_m": 0, "timezone": "Australia/Sydney", "site": "weir \u003c1\u003e"},`},
		{topology.Location{Site: "weir"}, `"location": {"site": "weir"},`},
	} {
		s := example()
		s.Location = tt.at
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		between := strings.Join(strings.Fields(strings.Split(strings.Split(string(text), `"River Lab",`)[1], `"worker"`)[0]), " ")
		between = strings.NewReplacer("{ ", "{", " }", "}").Replace(between)
		if between != tt.want {
			t.Errorf("Encode() of %+v has %s; want %s", tt.at, between, tt.want)
		}
		if got, err := Decode(text); err != nil || !cmp.Equal(got, s) {
			t.Errorf("Decode(Encode()) of %+v = %+v, %v", tt.at, got, err)
		}
	}
}

func TestCheckRefusesWhatOthersRelyOn(t *testing.T) {
	for name, spoil := range map[string]func(*Sidecar){
		"version":         func(s *Sidecar) { s.Version = 2 },
		"id":              func(s *Sidecar) { s.ID = "../x"; s.Name = "../x.csv" },
		"another's name":  func(s *Sidecar) { s.Name = strings.Replace(s.Name, "000007", "000008", 1) },
		"no extension":    func(s *Sidecar) { s.Name = string(s.ID) },
		"a path":          func(s *Sidecar) { s.Name = string(s.ID) + "/../x.csv" },
		"a sidecar":       func(s *Sidecar) { s.Name = string(s.ID) + ".json" },
		"two extensions":  func(s *Sidecar) { s.Name = string(s.ID) + ".csv.gz" },
		"bytes":           func(s *Sidecar) { s.Bytes = -1 },
		"short hash":      func(s *Sidecar) { s.SHA256 = "00" },
		"upper-case hash": func(s *Sidecar) { s.SHA256 = strings.Repeat("0A", 32) },
	} {
		s := example()
		spoil(s)
		if text, err := s.Encode(); err == nil {
			t.Errorf("%s: Encode() = %d bytes, nil; want an error", name, len(text))
		}
	}
	for name, text := range map[string]string{"nothing": "", "no JSON": "id", "no object": "[]", "empty": "{}", "large": strings.Repeat(" ", MaxBytes+1)} {
		if s, err := Decode([]byte(text)); err == nil || s != nil {
			t.Errorf("%s: Decode() = %v, %v; want nil and an error", name, s, err)
		}
	}
}

func TestIDsThatAreNone(t *testing.T) {
	good := string(example().ID)
	if err := ID(good).Check(); err != nil {
		t.Errorf("Check(%q) = %v; want nil", good, err)
	}
	for _, bad := range []string{"", ".", "..", "/", good + "/", "../" + good, good + "\x00", good + "\n", strings.ToUpper(good), "-" + good,
		strings.Replace(good, "air-csv", "", 1), strings.Replace(good, "_", "-", 1), strings.Replace(good, "000007", "7", 1), good + ".csv"} {
		if err := ID(bad).Check(); err == nil {
			t.Errorf("Check(%q) = nil; want an error", bad)
		}
	}
}

func TestIDsSortByTimeWithinAWorker(t *testing.T) {
	early := NewID("a", time.Unix(1, 0), 2, 1)
	late := NewID("a", time.Unix(2, 0), 1, 1)
	next := NewID("a", time.Unix(2, 0), 1, 2)
	if !(early < late && late < next) {
		t.Errorf("ids = %s, %s, %s; want them in this order", early, late, next)
	}
}

func TestEncodeRefusesWhatNobodyWouldRead(t *testing.T) {
	s := example()
	s.History[0].Reason = strings.Repeat("x", MaxBytes)
	if text, err := s.Encode(); err == nil {
		t.Errorf("Encode() = %d bytes, nil; want an error", len(text))
	}
}

// Each proof is told in words of its own.
func TestProofsInWords(t *testing.T) {
	seen := map[string]Proof{}
	for _, p := range []Proof{ByStatus, ByHead, ByDigest, ByContent, "", "telepathy"} {
		words := p.Words()
		if other, twice := seen[words]; twice && (p != "telepathy" || other != "") {
			t.Errorf("%q and %q are both %q", p, other, words)
		}
		if seen[words] = p; strings.Contains(words, "sha256") != (p == ByDigest) {
			t.Errorf("%q is %q; want only a digest to speak of the sha256", p, words)
		}
	}
}

// What is changed in a clone is not changed in the sidecar.
func TestCloneIsApart(t *testing.T) {
	s := example()
	s.Detections, s.Upload, s.Receipt, s.TimeCorrected = []Detection{{Label: "person"}}, &Upload{Attempts: 1}, &Receipt{Key: "k"}, &Correction{}
	want, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c := s.Clone()
	c.Detections[0].Label, c.Upload.Attempts, c.Receipt.Key, c.TimeCorrected.Anchor.BootNS = "cat", 2, "l", 3
	c.History[0].Reason = "none"
	c.Add(Event{State: "sent"})
	got, err := s.Encode()
	if diff := cmp.Diff(string(want), string(got)); diff != "" || err != nil {
		t.Errorf("after changes to its clone (-want +got), %v:\n%s", err, diff)
	}
}

// An id that passes is a file's name and nothing more, whatever it was.
func FuzzIDCheck(f *testing.F) {
	for _, seed := range []string{string(example().ID), "", "..", "a_20260301T000000Z_0000000000000000-000000", "a/b", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if ID(text).Check() != nil {
			return
		}
		if len(text) > 80 || strings.ContainsAny(text, "/\x00.\\\n ") {
			t.Errorf("Check(%q) = nil; want an error", text)
		}
	})
}

// What is decoded can be encoded, and means the same.
func FuzzDecode(f *testing.F) {
	text, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Add([]byte(strings.Replace(string(text), `"v": 1`, `"v": 1, "location": {"latitude": 1e300, "longitude": -0.0, "height_m": null, "site": ""}`, 1)))
	f.Add([]byte(strings.Replace(string(text), `"v": 1`, `"v": 1e0, "V": 1`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Decode(text)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil && len(text) > MaxBytes/256 {
			return // with all its keys it can be too large
		}
		if err != nil {
			t.Fatalf("Encode(Decode(%q)) = %v; want nil", text, err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("Decode(%q) = %v; want nil", again, err)
		}
		if diff := cmp.Diff(s, back); diff != "" {
			t.Errorf("Decode(Encode(Decode(%q))) (-want +got):\n%s", text, diff)
		}
	})
}
