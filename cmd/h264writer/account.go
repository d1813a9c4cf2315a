package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// position is how far the frames of a source are accounted for: each frame before
// Next is in a segment, or missing in the sidecar of one. It moves with each
// segment, in the journal of the recording, and with the end of each recording,
// in a file of its own, before the recording is removed.
type position struct {
	Recording uint64            `json:"recording"` // the last one that is finished
	Source    msg.Topic         `json:"source,omitempty"`
	Epoch     msg.Epoch         `json:"epoch"`
	Next      msg.Seq           `json:"next"`
	Sent      msg.Seq           `json:"sent,omitempty"`    // frames from Next to this were sent to ffmpeg and are lost
	Earlier   []sidecar.RunSpan `json:"earlier,omitempty"` // frames of earlier runs of sources that are lost, and not yet declared so
}

// enter is the position at the beginning of a recording. What follows a run of a
// source that was read is read from its first frame on; of another source,
// nothing is expected before the first frame that was read.
func (p position) enter(h head) position {
	if p.Source == h.Source && p.Epoch == h.Epoch {
		return p
	}
	next := position{Recording: p.Recording, Source: h.Source, Epoch: h.Epoch, Earlier: p.Earlier}
	if p.Source != h.Source {
		next.Next = h.First
	}
	if p.Sent > p.Next {
		next.Earlier = withSpan(next.Earlier, sidecar.RunSpan{Epoch: p.Epoch, Span: sidecar.Span{First: p.Next, Last: p.Sent - 1}})
	}
	return next
}

// maxSpans bounds a list of missing frames.
const maxSpans = 64

// withSpan adds a span. Beyond the bound only the last ones are kept: a source that
// restarts so often without one segment has worse problems than lost frames.
func withSpan(list []sidecar.RunSpan, s sidecar.RunSpan) []sidecar.RunSpan {
	list = append(append([]sidecar.RunSpan(nil), list...), s)
	return list[max(0, len(list)-maxSpans):]
}

// account is the position after a segment of these frames, and what is missing
// since the one before. end is that of the frames that no later segment of the
// recording can have.
func (p position) account(in []sentFrame, end msg.Seq) (position, *sidecar.Frames) {
	frames := &sidecar.Frames{Earlier: p.Earlier}
	missing := func(first, end msg.Seq) {
		if first >= end {
			return
		}
		frames.Lost += uint64(end - first)
		if n := len(frames.Missing); n > 0 && frames.Missing[n-1].Last+1 == first {
			frames.Missing[n-1].Last = end - 1
		} else if n < maxSpans {
			frames.Missing = append(frames.Missing, sidecar.Span{First: first, Last: end - 1})
		}
	}
	next := p.Next
	for _, f := range in {
		missing(next, f.Seq)
		next = f.Seq + 1
	}
	missing(next, end)
	p.Next, p.Sent, p.Earlier = max(next, end), 0, nil
	return p, frames
}

// lostEarlier is the number of frames of earlier runs that a segment declares lost.
func lostEarlier(list []sidecar.RunSpan) (n int) {
	for _, s := range list {
		n += int(s.Last-s.First) + 1
	}
	return n
}

// positionFile is where a worker keeps its position, beside the states.
func positionFile(worker string) string { return "." + worker + ".position" }

// readPosition is the zero position where there is none yet.
func readPosition(s *spool.Spool, worker string) (p position, err error) {
	text, err := s.ReadAtom(positionFile(worker))
	if errors.Is(err, fs.ErrNotExist) {
		return position{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return position{}, fmt.Errorf("read position: %w", err)
	}
	return p, nil
}

func writePosition(s *spool.Spool, worker string, p position) error {
	text, err := json.Marshal(p)
	if err == nil {
		err = s.Insist(func() error { return s.WriteAtom(positionFile(worker), append(text, '\n')) })
	}
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	return nil
}
