package msg

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/shm"
)

func addVectors(f *testing.F, names ...string) {
	for _, name := range names {
		for _, v := range vectors(f, name) {
			if parts := v.parts(); len(parts) >= 2 && len(parts[1]) < 4096 {
				f.Add(parts[0], parts[1])
			}
		}
	}
}

// What Decode accepts keeps to the limits, and reads the same once it is
// written again: nothing was taken for something else.
func FuzzDecode(f *testing.F) {
	addVectors(f, "messages.jsonl", "bodies.jsonl")
	f.Fuzz(func(t *testing.T, topic, header []byte) {
		m, err := Decode([][]byte{topic, header})
		if c := class(err); c != "" && c != "malformed" && c != "version" {
			t.Fatalf("Decode() = %v; want ErrMalformed or ErrVersion", err)
		}
		if err != nil {
			return
		}
		if m.Seq > maxSeq || m.BootNS < 0 || m.Epoch == 0 || len(header) > maxHeader || len(m.Node) > maxLabel || !utf8.ValidString(m.Node) {
			t.Errorf("Decode() = %+v; want it within the limits", m.Header)
		}
		if _, _, _, err := Topic(topic).Split(); err != nil || m.Topic() != Topic(topic) {
			t.Errorf("topic of an accepted message: %v, %s; want %s", err, m.Topic(), topic)
		}
		// The reader of the whole agrees with encoding/json on the same text.
		var again Header
		if err := json.Unmarshal(header, &again); err != nil || !reflect.DeepEqual(again, m.Header) {
			t.Errorf("json.Unmarshal() = %v, differs: %s", err, cmp.Diff(m.Header, again))
		}
		text, err := json.Marshal(m.Header)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode([][]byte{topic, text}); err != nil || !reflect.DeepEqual(back.Header, m.Header) {
			t.Errorf("Decode(%s) = %v; want %+v", text, err, m.Header)
		}
	})
}

func FuzzBodies(f *testing.F) {
	addVectors(f, "bodies.jsonl")
	f.Fuzz(func(t *testing.T, topic, header []byte) {
		m, err := Decode([][]byte{topic, header})
		if err != nil {
			return
		}
		body, err := readBody(&m)
		if class(err) != "" && class(err) != "malformed" {
			t.Fatalf("body = %v; want ErrMalformed", err)
		}
		if err != nil {
			return
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatalf("json.Marshal(%+v) = %v; what is accepted can be written", body, err)
		}
		if len(text) > maxHeader {
			return // written with escapes that it came without
		}
		again, err := Decode([][]byte{topic, text})
		if err != nil {
			t.Fatalf("Decode(%s) = %v; want the same message", text, err)
		}
		back, err := readBody(&again)
		if err != nil {
			t.Fatalf("body of %s = %v; want the same body", text, err)
		}
		second, err := json.Marshal(back)
		if err != nil || !bytes.Equal(text, second) {
			t.Errorf("body written twice: %v\n%s\n%s", err, text, second)
		}
		if frame, ok := body.(FrameMessage); ok {
			checkImage(t, frame.Geometry, frame.Size)
		}
	})
}

// checkImage looks at pixels as a reader would: nothing in an accepted
// geometry may lead it out of the frame.
func checkImage(t *testing.T, g Geometry, size int) {
	t.Helper()
	img := pixel.Image{Format: pixel.Format(g.Format), Size: pixel.Size{Width: g.Width, Height: g.Height}, Planes: g.Planes, Data: make([]byte, min(size, 1<<20))}
	for i := range g.Planes {
		if rows, err := img.Plane(i); err == nil {
			rows.Row(rows.Count - 1)
		}
	}
}

func FuzzTopic(f *testing.F) {
	for _, v := range vectors(f, "topics.jsonl") {
		f.Add(string(*v.Topic))
	}
	f.Fuzz(func(t *testing.T, text string) {
		kind, source, stream, err := Topic(text).Split()
		if err != nil {
			return
		}
		if got := TopicOf(kind, source, stream); string(got) != text || len(text) > maxTopic {
			t.Errorf("TopicOf(%s, %s, %s) = %s; want %s", kind, source, stream, got, text)
		}
		if strings.ContainsAny(string(source)+string(stream), "/. \n\x00") {
			t.Errorf("Topic(%q).Split() = %q, %q; want names that are safe in paths", text, source, stream)
		}
	})
}

func FuzzEndpoint(f *testing.F) {
	for _, v := range vectors(f, "endpoints.jsonl") {
		f.Add(*v.Endpoint)
	}
	f.Fuzz(func(t *testing.T, text string) {
		runDir, source, stream, err := ParseEndpoint(text)
		if err != nil {
			return
		}
		if len(text) > len("ipc://")+maxIPCPath || strings.ContainsAny(text, "\x00\n") {
			t.Errorf("ParseEndpoint(%q) accepts it; want a path that a unix socket can have", text)
		}
		if again, err := Endpoint(runDir, source, stream); err != nil || again != text {
			t.Errorf("Endpoint(%q, %q, %q) = %q, %v; want %q", runDir, source, stream, again, err, text)
		}
	})
}

func FuzzMeta(f *testing.F) {
	for _, v := range vectors(f, "meta.jsonl") {
		f.Add(string(v.Ring), []byte(*v.Meta))
	}
	f.Fuzz(func(t *testing.T, ring string, text []byte) {
		m, err := decodeMeta(shm.Name(ring), text)
		if class(err) != "" && class(err) != "malformed" {
			t.Fatalf("decodeMeta() = %v; want ErrMalformed", err)
		}
		if err != nil {
			return
		}
		if (m.Kind == KindFrame) != (m.Geometry != nil) {
			t.Errorf("decodeMeta() = %+v; want a geometry with frames alone", m)
		}
		again, err := decodeMeta(shm.Name(ring), m.encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("decodeMeta(%s) = %v; want the same: %s", m.encode(), err, cmp.Diff(m, again))
		}
		if m.Geometry != nil {
			checkImage(t, *m.Geometry, 1<<16)
		}
	})
}
