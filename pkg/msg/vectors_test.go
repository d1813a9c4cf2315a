package msg

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/shm"
)

// A vector is a case that any client in any language must decide alike. How
// the files are written is said in docs/PROTOCOL.md.
type vector struct {
	Name         string          `json:"name"`
	Parts        []part          `json:"parts"`
	Topic        *Topic          `json:"topic"`
	Endpoint     *string         `json:"endpoint"`
	Ring         shm.Name        `json:"ring"`
	Meta         *string         `json:"meta"`
	Accept       json.RawMessage `json:"accept"` // keys of the header, or of the meta
	Body         json.RawMessage `json:"body"`
	PayloadHex   *string         `json:"payload_hex"`
	PayloadBytes *int            `json:"payload_bytes"`
	Refuse       string          `json:"refuse"` // malformed or version
}

// part is a message's part: text, or pieces that may be repeated.
type part []byte

func (p *part) UnmarshalJSON(text []byte) error {
	if text[0] == '"' {
		var s string
		err := json.Unmarshal(text, &s)
		*p = part(s)
		return err
	}
	var pieces []struct {
		Text  string `json:"text"`
		Hex   string `json:"hex"`
		Times int    `json:"times"`
	}
	if err := json.Unmarshal(text, &pieces); err != nil {
		return err
	}
	for _, piece := range pieces {
		raw, err := hex.DecodeString(piece.Hex)
		if err != nil {
			return err
		}
		*p = append(*p, bytes.Repeat(append(raw, piece.Text...), max(piece.Times, 1))...)
	}
	return nil
}

func (v *vector) parts() [][]byte {
	parts := make([][]byte, len(v.Parts))
	for i, p := range v.Parts {
		parts[i] = p
	}
	return parts
}

func vectors(t testing.TB, name string) []vector {
	t.Helper()
	file, err := os.Open("testdata/vectors/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []vector
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, v)
	}
	if err := lines.Err(); err != nil || len(all) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(all), err)
	}
	return all
}

// class is how vectors name a refusal.
func class(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrVersion):
		return "version"
	case errors.Is(err, ErrMalformed):
		return "malformed"
	}
	return err.Error()
}

// pick leaves of got, as JSON, the keys that want has.
func pick(t *testing.T, want json.RawMessage, got any) (string, string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var w, g map[string]any
	if err := errors.Join(json.Unmarshal(want, &w), json.Unmarshal(text, &g)); err != nil {
		t.Fatal(err)
	}
	for key := range g {
		if _, asked := w[key]; !asked {
			delete(g, key)
		}
	}
	a, errA := json.Marshal(w)
	b, errB := json.Marshal(g)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	return string(a), string(b)
}

// readBody reads the body that a message of its kind has.
func readBody(m *Message) (any, error) {
	switch m.Kind {
	case KindReading:
		return m.Reading()
	case KindFrame:
		return m.Frame()
	case KindDetection:
		return m.Detection()
	case KindFile:
		return m.File()
	}
	return m.State()
}

func TestMessageVectors(t *testing.T) {
	for _, v := range vectors(t, "messages.jsonl") {
		t.Run(strings.ReplaceAll(v.Name, "/", " "), func(t *testing.T) {
			m, err := Decode(v.parts())
			if class(err) != v.Refuse {
				t.Fatalf("Decode() = %v; want refusal %q", err, v.Refuse)
			}
			if err != nil {
				return
			}
			if want, got := pick(t, v.Accept, m.Header); got != want {
				t.Errorf("header: %s", cmp.Diff(want, got))
			}
			if v.PayloadHex != nil && hex.EncodeToString(m.Payload) != *v.PayloadHex {
				t.Errorf("payload = %x; want %s", m.Payload, *v.PayloadHex)
			}
			if v.PayloadBytes != nil && len(m.Payload) != *v.PayloadBytes {
				t.Errorf("payload of %d bytes; want %d", len(m.Payload), *v.PayloadBytes)
			}
			if v.Body != nil {
				compareBody(t, &m, v.Body)
			}
		})
	}
}

func compareBody(t *testing.T, m *Message, want json.RawMessage) {
	t.Helper()
	body, err := readBody(m)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := pick(t, want, body); got != want {
		t.Errorf("body: %s", cmp.Diff(want, got))
	}
}

func TestBodyVectors(t *testing.T) {
	for _, v := range vectors(t, "bodies.jsonl") {
		t.Run(strings.ReplaceAll(v.Name, "/", " "), func(t *testing.T) {
			m, err := Decode(v.parts())
			if err != nil {
				t.Fatal(err)
			}
			if v.Refuse == "" {
				compareBody(t, &m, v.Body)
			} else if _, err := readBody(&m); class(err) != v.Refuse {
				t.Errorf("body of %s = %v; want refusal %q", v.Parts[1], err, v.Refuse)
			}
		})
	}
}

func TestTopicVectors(t *testing.T) {
	for _, v := range vectors(t, "topics.jsonl") {
		kind, source, stream, err := v.Topic.Split()
		if (err != nil) != (v.Refuse != "") {
			t.Errorf("Topic(%q).Split() = %v; want refusal %q", *v.Topic, err, v.Refuse)
		}
		if err != nil {
			continue
		}
		got := map[string]string{"kind": string(kind), "source": string(source), "stream": string(stream)}
		if want, got := pick(t, v.Accept, got); got != want {
			t.Errorf("Topic(%q).Split() = %s; want %s", *v.Topic, got, want)
		}
	}
}

func TestEndpointVectors(t *testing.T) {
	for _, v := range vectors(t, "endpoints.jsonl") {
		runDir, source, stream, err := ParseEndpoint(*v.Endpoint)
		if (err != nil) != (v.Refuse != "") {
			t.Errorf("ParseEndpoint(%q) = %v; want refusal %q", *v.Endpoint, err, v.Refuse)
		}
		if err != nil {
			continue
		}
		got := map[string]string{"run_dir": runDir, "source": string(source), "stream": string(stream)}
		if want, got := pick(t, v.Accept, got); got != want {
			t.Errorf("ParseEndpoint(%q) = %s; want %s", *v.Endpoint, got, want)
		}
		if again, err := Endpoint(runDir, source, stream); err != nil || again != *v.Endpoint {
			t.Errorf("Endpoint(%q, %s, %q) = %s, %v; want %s", runDir, source, stream, again, err, *v.Endpoint)
		}
	}
}

func TestMetaVectors(t *testing.T) {
	for _, v := range vectors(t, "meta.jsonl") {
		m, err := decodeMeta(v.Ring, []byte(*v.Meta))
		if class(err) != v.Refuse {
			t.Errorf("%s: decodeMeta() = %v; want refusal %q", v.Name, err, v.Refuse)
		}
		if err != nil {
			continue
		}
		if want, got := pick(t, v.Accept, m); got != want {
			t.Errorf("%s: %s", v.Name, cmp.Diff(want, got))
		}
	}
}
