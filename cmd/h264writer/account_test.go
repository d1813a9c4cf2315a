package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

func TestAccount(t *testing.T) {
	frames := func(list ...msg.Seq) (s []sentFrame) {
		for _, n := range list {
			s = append(s, sentFrame{Seq: n})
		}
		return s
	}
	p := position{}.enter(head{Source: "frame/porch/video", Epoch: 7, First: 5})
	for _, tt := range []struct {
		in      []sentFrame
		end     msg.Seq
		next    msg.Seq
		missing []sidecar.Span
	}{
		{in: frames(6, 7), next: 8, missing: []sidecar.Span{{First: 5, Last: 5}}}, // what was before the first frame is not ours
		{in: frames(9, 12), next: 13, missing: []sidecar.Span{{First: 8, Last: 8}, {First: 10, Last: 11}}},
		{in: frames(13), end: 17, next: 17, missing: []sidecar.Span{{First: 14, Last: 16}}},
	} {
		after, got := p.account(tt.in, tt.end)
		if diff := cmp.Diff(tt.missing, got.Missing); after.Next != tt.next || diff != "" {
			t.Errorf("account(%v, %v) = next %d; want %d; missing (-want +got):\n%s", tt.in, tt.end, after.Next, tt.next, diff)
		}
		p = after
	}
	// The source starts again while frames of its last run are lost and in no sidecar.
	p.Sent = 20
	p = p.enter(head{Source: "frame/porch/video", Epoch: 8, First: 2})
	after, got := p.account(frames(2), 0)
	want := []sidecar.RunSpan{{Epoch: 7, Span: sidecar.Span{First: 17, Last: 19}}}
	if diff := cmp.Diff(want, got.Earlier); after.Next != 3 || got.Lost != 2 || diff != "" || after.Earlier != nil {
		t.Errorf("a new epoch that begins with 2: next %d, lost %d, earlier after it %v; want 3, 2 and none; earlier (-want +got):\n%s",
			after.Next, got.Lost, after.Earlier, diff)
	}
	// Another source is a new beginning.
	if p := after.enter(head{Source: "frame/gate/video", Epoch: 9, First: 1000}); p.Next != 1000 {
		t.Errorf("another source begins with %d; want its first frame, 1000", p.Next)
	}
}
