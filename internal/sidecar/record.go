package sidecar

import (
	"slices"
	"strings"

	"github.com/perch-edge/perch/pkg/msg"
)

// Detection is an object that a detector saw while the file's data were made.
type Detection struct {
	Detector    msg.Source `json:"detector"`
	FrameEpoch  msg.Epoch  `json:"frame_epoch"`
	FrameSeq    msg.Seq    `json:"frame_seq"`
	FrameTime   msg.Time   `json:"frame_time"`
	FrameBootNS int64      `json:"frame_boot_ns"`
	Label       string     `json:"label"`
	Score       float64    `json:"score"` // 0 to 1
	Box         [4]float64 `json:"box"`   // x0, y0, x1, y1 in pixels of the frame
}

// Correction is when the data were really made, of a file that was born before
// the wall clock was synchronised: reckoned by boot time from a moment of the
// same boot at which it was. Start and End of the sidecar stay as they were
// recorded.
type Correction struct {
	Start  msg.Time `json:"start"`
	End    msg.Time `json:"end"`
	Anchor Anchor   `json:"anchor"`
}

// Anchor is a moment of a boot at which the wall clock was synchronised.
type Anchor struct {
	BootID string   `json:"boot_id"`
	BootNS int64    `json:"boot_ns"`
	Time   msg.Time `json:"time"`
}

// Upload is an upload that is under way and can be gone on with.
type Upload struct {
	To         string `json:"to"`                    // the endpoint, without secrets
	URL        string `json:"url,omitempty"`         // where the server keeps what it has (tus), without secrets
	SidecarURL string `json:"sidecar_url,omitempty"` // and what it has of the sidecar
	Attempts   int    `json:"attempts"`              // that the server refused
}

// Receipt is the receiver's word that it has the file.
type Receipt struct {
	To     string   `json:"to"`               // the endpoint, without secrets
	Key    string   `json:"key"`              // the file's name or idempotency key there
	Status int      `json:"status,omitempty"` // of HTTP
	Proof  Proof    `json:"proof,omitempty"`  // what the word rests on
	Digest string   `json:"digest,omitempty"` // sha256 that the receiver told; it is the file's
	Tag    string   `json:"tag,omitempty"`    // the receiver's own: an ETag, a version
	Time   msg.Time `json:"time"`
	BootNS int64    `json:"boot_ns"`
	BootID string   `json:"boot_id"`
	Synced bool     `json:"synced"`
}

// Proof is what proved that a receiver has a file.
type Proof string

// The proofs, the weakest first.
const (
	ByStatus  Proof = "status"
	ByHead    Proof = "head"
	ByDigest  Proof = "digest"
	ByContent Proof = "content"
)

// Words are the proof for people: what the receiver did.
func (p Proof) Words() string {
	switch p {
	case ByStatus:
		return "it said so"
	case ByHead:
		return "it shows the same length"
	case ByDigest:
		return "it named the file's sha256"
	case ByContent:
		return "it gave the same bytes back"
	}
	return "it is not noted what proved it"
}

// Class is what sort of file it is, for rules about priority and deletion.
type Class string

// The classes.
const (
	Losses   Class = "losses"   // accounts of files that were given up
	Readings Class = "readings" // text/csv
	Pictures Class = "pictures" // image/…
	Clips    Class = "clips"    // video/…
	Other    Class = "other"
)

// Classes lists them, what is smallest and dearest first.
func Classes() []Class { return []Class{Losses, Readings, Pictures, Clips, Other} }

// Class is the file's, by its media type.
func (s *Sidecar) Class() Class {
	switch {
	case s.Media == LossesMedia:
		return Losses
	case s.Media == "text/csv":
		return Readings
	case strings.HasPrefix(s.Media, "image/"):
		return Pictures
	case strings.HasPrefix(s.Media, "video/"):
		return Clips
	}
	return Other
}

// Clone is a copy that can be changed without changing the sidecar: in its
// history, its detections and the records that are added on the way.
func (s *Sidecar) Clone() *Sidecar {
	c := *s
	c.History, c.Detections = slices.Clone(s.History), slices.Clone(s.Detections)
	c.TimeCorrected, c.Upload, c.Receipt = copied(s.TimeCorrected), copied(s.Upload), copied(s.Receipt)
	return &c
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// Add puts an event at the end of the history.
func (s *Sidecar) Add(e Event) { s.History = append(s.History, e) }

// Sent says whether a receiver has the file.
func (s *Sidecar) Sent() bool { return s.Receipt != nil }

// Worker is the worker that made the file of that id.
func (id ID) Worker() string {
	worker, _, _ := strings.Cut(string(id), "_")
	return worker
}
