// Package sidecar is the JSON beside every file that perch keeps: what it is,
// where it is from, and what happened to it.
//
//	<id>.jpg + <id>.json --> who reads the data needs nothing else
//
// A sidecar is written before its file appears under a state's folder, so a
// file that can be seen has one. It grows by its history only: each transition
// adds an Event with its reason.
package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Version of the format, the key "v".
const Version = 1

// MaxDetections is how many objects a sidecar lists.
const MaxDetections = 500

// MaxBytes bounds a sidecar.
const MaxBytes = 1 << 20

// ID names a file for life: <worker>_<UTC time>_<epoch>-<number>. The epoch and
// the number make it unique whatever the wall clock says; the time is for
// people.
type ID string

var idRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}_[0-9]{8}T[0-9]{6}Z_[0-9a-f]{16}-[0-9]{6,12}$`)

// NewID is the id of a worker's n-th file of a run.
func NewID(worker string, at time.Time, epoch msg.Epoch, n uint64) ID {
	return ID(fmt.Sprintf("%s_%s_%s-%06d", worker, at.UTC().Format("20060102T150405Z"), epoch, n))
}

// Check says whether an id is one, and so safe as a file's name.
func (id ID) Check() error {
	if !idRE.MatchString(string(id)) {
		return fmt.Errorf("file id %.100q: want <worker>_<yyyymmddThhmmssZ>_<epoch>-<number>", string(id))
	}
	return nil
}

// Moment is a point of the data: a reading or a frame, and when it was made.
type Moment struct {
	Time   msg.Time  `json:"time"`
	BootNS int64     `json:"boot_ns"`
	BootID string    `json:"boot_id"`
	Synced bool      `json:"synced"`
	Epoch  msg.Epoch `json:"epoch"` // of the data's publisher
	Seq    msg.Seq   `json:"seq"`
}

// MomentOf is the moment of a message.
func MomentOf(h *msg.Header) Moment {
	return Moment{Time: h.Time, BootNS: h.BootNS, BootID: h.BootID, Synced: h.Synced, Epoch: h.Epoch, Seq: h.Seq}
}

// Event is one transition in a file's life.
type Event struct {
	State  string   `json:"state"`
	Time   msg.Time `json:"time"`
	BootNS int64    `json:"boot_ns"`
	BootID string   `json:"boot_id"`
	Synced bool     `json:"synced"`
	By     string   `json:"by"`             // the worker that did it
	Reason string   `json:"reason"`         // why, for people
	Rule   string   `json:"rule,omitempty"` // the expression that decided, where one did
}

// Frames says what became of the frames from the end of the last video of the
// same run of their publisher to the end of this one.
type Frames struct {
	Repeated uint64 `json:"repeated"`          // pictures in the file that show a frame again
	Skipped  uint64 `json:"skipped"`           // frames left out on purpose
	Lost     uint64 `json:"lost"`              // frames that are in no file
	Missing  []Span `json:"missing,omitempty"` // which are lost, ascending; the first ones where they are many
	// Frames of earlier runs of the publisher that are in no file either, and
	// that no file of those runs could name. Lost does not count them.
	Earlier []RunSpan `json:"earlier,omitempty"`
}

// RunSpan is a range of a run's sequence numbers.
type RunSpan struct {
	Epoch msg.Epoch `json:"epoch"`
	Span
}

// Span is a range of sequence numbers, both ends included.
type Span struct {
	First msg.Seq `json:"first"`
	Last  msg.Seq `json:"last"`
}

// Sidecar is all that is known of a file.
type Sidecar struct {
	Version          int               `json:"v"`
	ID               ID                `json:"id"`
	Name             string            `json:"name"`  // the file's name, id and extension
	Media            string            `json:"media"` // its media type (RFC 6838), as image/jpeg
	Node             string            `json:"node"`
	ResponsibleParty string            `json:"responsible_party,omitempty"`
	Location         topology.Location `json:"location,omitzero"` // of the node
	Worker           string            `json:"worker"`
	Program          string            `json:"program"`
	Source           msg.Topic         `json:"source"` // the topic of its data
	Device           *topology.Device  `json:"device,omitempty"`
	Start            Moment            `json:"start"`
	End              Moment            `json:"end"`
	Items            uint64            `json:"items"`            // rows or frames
	Frames           *Frames           `json:"frames,omitempty"` // of a video
	Bytes            int64             `json:"bytes"`
	SHA256           string            `json:"sha256"`                       // lower-case hexadecimal
	Verdict          string            `json:"verdict,omitempty"`            // keep, once that is decided
	Detections       []Detection       `json:"detections,omitempty"`         // that overlap the file, the first ones where they are many
	OmittedObjects   uint64            `json:"omitted_detections,omitempty"` // how many more there were
	TimeCorrected    *Correction       `json:"time_corrected,omitempty"`
	Upload           *Upload           `json:"upload,omitempty"`
	Receipt          *Receipt          `json:"receipt,omitempty"`
	History          []Event           `json:"history"`
}

// State is the last state of the file's history.
func (s *Sidecar) State() string {
	if len(s.History) == 0 {
		return ""
	}
	return s.History[len(s.History)-1].State
}

// Encode is the sidecar as it stands in its file.
func (s *Sidecar) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode sidecar of %s: %w", s.ID, err)
	}
	if len(text) >= MaxBytes { // nobody would read it
		return nil, fmt.Errorf("sidecar of %s has %d bytes: want at most %d", s.ID, len(text)+1, MaxBytes)
	}
	return append(text, '\n'), nil
}

// Decode reads a sidecar and checks what others rely on.
func Decode(text []byte) (*Sidecar, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("sidecar of %d bytes: want at most %d", len(text), MaxBytes)
	}
	var s Sidecar
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("decode sidecar: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Sidecar) check() error {
	var errs []error
	if s.Version != Version {
		errs = append(errs, fmt.Errorf("sidecar version %d: want %d", s.Version, Version))
	}
	errs = append(errs, s.ID.Check())
	if ext, ok := cutID(s.Name, s.ID); !ok {
		errs = append(errs, fmt.Errorf("sidecar of %s names the file %.100q (extension %q)", s.ID, s.Name, ext))
	}
	if s.Bytes < 0 || !sumRE.MatchString(s.SHA256) {
		errs = append(errs, fmt.Errorf("sidecar of %s: %d bytes, sha256 %.70q", s.ID, s.Bytes, s.SHA256))
	}
	return errors.Join(errs...)
}

var (
	extRE = regexp.MustCompile(`^\.[a-z0-9]{1,8}$`)
	sumRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func cutID(name string, id ID) (ext string, ok bool) {
	if len(name) <= len(id) || name[:len(id)] != string(id) {
		return "", false
	}
	ext = name[len(id):]
	return ext, extRE.MatchString(ext) && ext != ".json"
}
