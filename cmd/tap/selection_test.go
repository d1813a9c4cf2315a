package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern pattern
		topic   msg.Topic
		want    bool
		literal string
	}{
		{"", "reading/air/environment", true, ""},
		{"reading/", "reading/air/environment", true, "reading/"},
		{"reading/a", "reading/air/environment", true, "reading/a"},
		{"frame", "reading/air/environment", false, "frame"},
		{"*/air/*", "reading/air/environment", true, ""},
		{"*/air", "reading/air/environment", false, ""},
		{"frame/*/video", "frame/porch/video", true, "frame/"},
		{"frame/porch/vide[o]", "frame/porch/video", true, "frame/porch/vide"},
	} {
		if got := c.pattern.match(c.topic); got != c.want {
			t.Errorf("match(%q, %q) = %v; want %v", c.pattern, c.topic, got, c.want)
		}
		if got := c.pattern.literal(); got != c.literal {
			t.Errorf("literal(%q) = %q; want %q", c.pattern, got, c.literal)
		}
	}
}

func TestSelection(t *testing.T) {
	air := msg.EndpointInfo{Endpoint: "ipc:///r/air.ipc", Source: "air"}
	porch := msg.EndpointInfo{Endpoint: "ipc:///r/porch.ipc", Source: "porch"}
	video := msg.EndpointInfo{Endpoint: "ipc:///r/porch.video.ipc", Source: "porch", Frames: "video"}
	still := msg.EndpointInfo{Endpoint: "ipc:///r/porch.still.ipc", Source: "porch", Frames: "still"}
	for _, c := range []struct {
		name     string
		what     []string
		topic    pattern
		prefixes []string
		at       []msg.EndpointInfo
		wants    msg.Topic
		not      msg.Topic
	}{
		{"a source", []string{"porch"}, "", []string{"reading/porch/", "frame/porch/", "detection/porch/", "file/porch/", "state/porch/"},
			[]msg.EndpointInfo{porch, video, still}, "frame/porch/still", "state/air/state"},
		{"a stream", []string{"porch.video"}, "", []string{"reading/porch/video", "frame/porch/video", "detection/porch/video", "file/porch/video", "state/porch/video"},
			[]msg.EndpointInfo{porch, video}, "frame/porch/video", "frame/porch/video2"},
		{"a source's readings", []string{"air"}, "reading/", []string{"reading/air/"},
			[]msg.EndpointInfo{air}, "reading/air/environment", "state/air/state"},
		{"an endpoint of frames", []string{"ipc:///r/porch.video.ipc"}, "frame/", []string{"frame/porch/video"},
			[]msg.EndpointInfo{video}, "frame/porch/video", "frame/porch/still"},
		{"an endpoint of messages", []string{"ipc:///r/porch.ipc"}, "", []string{"reading/porch/", "frame/porch/", "detection/porch/", "file/porch/", "state/porch/"},
			[]msg.EndpointInfo{porch}, "state/porch/state", "frame/porch/video"},
		{"two sources, frames", []string{"air", "porch"}, "frame/p*", []string{"frame/porch/"},
			[]msg.EndpointInfo{video, still}, "", "frame/porch/video"},
	} {
		sel, err := where{What: c.what, Topic: c.topic}.selection()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.prefixes, sel.prefixes()); diff != "" {
			t.Errorf("%s: prefixes: want -, got +\n%s", c.name, diff)
		}
		var at []msg.EndpointInfo
		for _, e := range []msg.EndpointInfo{air, porch, video, still} {
			if sel.at(e) {
				at = append(at, e)
			}
		}
		if diff := cmp.Diff(c.at, at); diff != "" {
			t.Errorf("%s: endpoints: want -, got +\n%s", c.name, diff)
		}
		for topic, want := range map[msg.Topic]bool{c.wants: true, c.not: false} {
			if kind, source, stream, err := topic.Split(); err == nil && sel.wants(kind, source, stream) != want {
				t.Errorf("%s: wants(%s) = %v; want %v", c.name, topic, !want, want)
			}
		}
	}
}
