package sidecar

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"

	"github.com/perch-edge/perch/pkg/msg"
)

// LossesMedia is the media type of losses files, the accounts of files that were
// given up: one Loss a line.
const LossesMedia = "application/jsonl"

// LossesExt is the extension of their names.
const LossesExt = ".jsonl"

// Loss is a line of a losses file: a file that no receiver has, and that is
// deleted. Its moment is when that was decided, numbered in the series of the
// worker that did.
type Loss struct {
	Moment
	Node   string    `json:"node"`
	ID     ID        `json:"id"`
	Class  Class     `json:"class"`
	Media  string    `json:"media"`
	Source msg.Topic `json:"source"`
	Start  Moment    `json:"start"`
	End    Moment    `json:"end"`
	Items  uint64    `json:"items"`
	Bytes  int64     `json:"bytes"`
	SHA256 string    `json:"sha256"`
	State  string    `json:"state"` // that it was in
	Reason string    `json:"reason"`
	Rule   string    `json:"rule,omitempty"`
}

// LossOf is the loss of a file that was in a state. The end of its history says
// why.
func LossOf(s *Sidecar, state string, at Moment) Loss {
	var e Event
	if n := len(s.History); n > 0 {
		e = s.History[n-1]
	}
	return Loss{at, s.Node, s.ID, s.Class(), s.Media, s.Source, s.Start, s.End, s.Items, s.Bytes, s.SHA256, state, e.Reason, e.Rule}
}

// Encode is the line, with its end.
func (l *Loss) Encode() ([]byte, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode loss of %s: %w", l.ID, err)
	}
	return append(text, '\n'), nil
}

// DecodeLoss reads a line.
func DecodeLoss(line []byte) (*Loss, error) {
	var l Loss
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, fmt.Errorf("decode loss: %w", err)
	}
	return &l, nil
}

// FindLoss looks for a file's line in a losses file. Lines that cannot be read
// are those of no file. The error is fs.ErrNotExist where there is none.
func FindLoss(in io.Reader, id ID) (*Loss, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, MaxBytes)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(id)) {
			continue
		}
		if l, err := DecodeLoss(lines.Bytes()); err == nil && l.ID == id {
			return l, nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("find loss of %s: %w", id, err)
	}
	return nil, fmt.Errorf("loss of %s: %w", id, fs.ErrNotExist)
}
