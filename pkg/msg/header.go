package msg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
)

// Version is the protocol's version, the header key "v".
const Version = 1

// Limits on what is sent and accepted, in bytes.
const (
	maxTopic   = 128
	maxHeader  = 64 << 10
	maxPayload = 1 << 20
	maxLabel   = 64  // of a node, a boot id, a label
	maxID      = 128 // of a file
	maxFrame   = 1 << 30
)

// Limits on what is counted.
const (
	maxKeys    = 64
	maxColumns = 256
	maxSeq     = 1<<53 - 1 // every JSON reader holds it exactly, RFC 8259 section 6
)

// Stamp is a moment: wall time, boot time, and whether the wall clock was
// synchronised then.
type Stamp = clock.Stamp

// Time is a wall time, written as RFC 3339 in UTC with all nine digits of the
// nanoseconds, so that times sort as text.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000000000Z"

func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes the nine digits.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+timeLayout+`"`), nil
}

// UnmarshalJSON reads that form and no other: one moment has one text.
func (t *Time) UnmarshalJSON(quoted []byte) error {
	text := strings.Trim(string(quoted), `"`)
	parsed, err := time.Parse(timeLayout, text)
	if err != nil || len(quoted) != len(text)+2 || parsed.Year() < 1 || parsed.Format(timeLayout) != text {
		return fmt.Errorf("time %.80s: want \"YYYY-MM-DDThh:mm:ss.nnnnnnnnnZ\"", quoted)
	}
	t.Time = parsed
	return nil
}

// Header is what every message carries.
type Header struct {
	Version int    `json:"v"`
	Kind    Kind   `json:"kind"`
	Node    string `json:"node"`
	Source  Source `json:"source"`
	Stream  Stream `json:"stream"`
	Epoch   Epoch  `json:"epoch"`
	BootID  string `json:"boot_id"`
	Seq     Seq    `json:"seq"`
	Time    Time   `json:"time"`
	BootNS  int64  `json:"boot_ns"` // CLOCK_BOOTTIME
	Synced  bool   `json:"synced"`
}

// header lets the publisher fill in what it alone knows.
func (h *Header) header() *Header { return h }

// Topic is the header's topic.
func (h *Header) Topic() Topic { return TopicOf(h.Kind, h.Source, h.Stream) }

// Stamp is the moment that the message is about.
func (h *Header) Stamp() Stamp {
	return Stamp{Wall: h.Time.Time, Boot: time.Duration(h.BootNS), Synced: h.Synced}
}

// ID names the message for people and in logs: source/stream/epoch/seq.
func (h *Header) ID() string {
	return fmt.Sprintf("%s/%s/%s/%d", h.Source, h.Stream, h.Epoch, h.Seq)
}

// Reading is one row of a sensor's values, in the order of its columns. A
// column's name ends in its unit, as temperature_c. A value that could not be
// measured, or that is not plausible, is NaN (JSON null), and Bad says why.
type Reading struct {
	Header
	Columns []string          `json:"columns"`
	Values  Values            `json:"values"`
	Bad     map[string]string `json:"bad,omitempty"`
}

// Values are numbers; NaN and the infinities are null in JSON.
type Values []float64

// MarshalJSON writes the shortest decimals that read back as the same numbers.
func (v Values) MarshalJSON() ([]byte, error) { return appendValues(nil, v), nil }

// UnmarshalJSON reads numbers and nulls. Like every such method it is given
// valid JSON: what stands between two commas is one value, or part of one that
// is no number.
func (v *Values) UnmarshalJSON(text []byte) error {
	inner, opened := bytes.CutPrefix(text, []byte("["))
	inner, closed := bytes.CutSuffix(inner, []byte("]"))
	if !opened || !closed {
		return fmt.Errorf("values %.80s: want a list of numbers", text)
	}
	*v = Values{}
	if len(skip(inner, 0)) == 0 {
		return nil
	}
	for one := range bytes.SplitSeq(inner, []byte(",")) {
		number := math.NaN()
		if one = bytes.TrimSpace(one); string(one) != "null" {
			var err error
			if number, err = strconv.ParseFloat(string(one), 64); err != nil {
				return fmt.Errorf("values %.80s: %w", text, err)
			}
		}
		*v = append(*v, number)
	}
	return nil
}

func appendValues(b []byte, values []float64) []byte {
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
	}
	return append(b, ']')
}

// Geometry is how a stream's frames are laid out. It does not change within an
// epoch. Coded formats (mjpeg) have no planes; their length is Size.
type Geometry struct {
	Format string        `json:"format"` // yuv420, nv12, yuyv, rgb24 or mjpeg
	Width  int           `json:"width"`
	Height int           `json:"height"`
	Planes []pixel.Plane `json:"planes"`
	Hz     float64       `json:"hz"` // the rate that the stream is meant to have

	ColourRange  pixel.Range  `json:"colour_range,omitempty"`
	ColourMatrix pixel.Matrix `json:"colour_matrix,omitempty"`
}

// Colour is how the samples stand for colours: what the publisher says, and
// pixel.DefaultColour where it does not.
func (g *Geometry) Colour() pixel.Colour {
	return pixel.Colour{Range: g.ColourRange, Matrix: g.ColourMatrix}.Or(pixel.DefaultColour(pixel.Format(g.Format)))
}

// FrameMessage is the descriptor of a frame: where its pixels are.
type FrameMessage struct {
	Header
	Ring       string `json:"ring"`
	Slot       int    `json:"slot"`
	Generation uint32 `json:"generation"`
	Size       int    `json:"size"` // bytes used in the slot
	Geometry
}

// Object is something a detector saw.
type Object struct {
	Label string     `json:"label"`
	Score float64    `json:"score"` // 0 to 1
	Box   [4]float64 `json:"box"`   // x0, y0, x1, y1 in pixels of the frame
}

// UnmarshalJSON wants all of it: encoding/json would fill up a short box.
func (o *Object) UnmarshalJSON(text []byte) error {
	var in struct {
		Label *string    `json:"label"`
		Score *float64   `json:"score"`
		Box   []*float64 `json:"box"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	if in.Label == nil || in.Score == nil || len(in.Box) != 4 || slices.Contains(in.Box, nil) {
		return fmt.Errorf("object %.80s: want label, score and a box of four numbers", text)
	}
	*o = Object{Label: *in.Label, Score: *in.Score, Box: [4]float64{*in.Box[0], *in.Box[1], *in.Box[2], *in.Box[3]}}
	return nil
}

// Detection is what a detector saw in one frame, also when that is nothing.
type Detection struct {
	Header
	FrameSource  Source   `json:"frame_source"`
	FrameEpoch   Epoch    `json:"frame_epoch"`
	FrameSeq     Seq      `json:"frame_seq"`
	FrameTime    Time     `json:"frame_time"`
	FrameBootNS  int64    `json:"frame_boot_ns"`
	CoveredUntil int64    `json:"covered_until"` // CLOCK_BOOTTIME ns: nothing before it is still to come
	Objects      []Object `json:"objects"`
	// Gate says why the model did not look at this frame: "still", since nothing
	// had moved. Objects is then what it saw when it looked last.
	Gate string `json:"gate,omitempty"`
}

// FileStates lists the states that a file can be said to have reached: born is
// complete and in RAM, dropped is not to be kept by a rule, ready is on disk,
// gone is deleted.
func FileStates() []string {
	return []string{"born", "dropped", "ready", "sent", "rejected", "quarantine", "gone"}
}

// File says that a file reached a state. The file is named by its id; where
// it lies follows from the state, never from the message.
type File struct {
	Header
	ID      string          `json:"id"`
	State   string          `json:"state"` // one of FileStates
	Sidecar json.RawMessage `json:"sidecar"`
}

// Account is what became of the messages of one stream in one epoch. Always
// Received + Repaired + Lost + Skipped = Sent.
type Account struct {
	Topic    Topic  `json:"topic"`
	Epoch    Epoch  `json:"epoch"`
	Sent     uint64 `json:"sent"`     // as far as this subscriber knows: the next sequence number
	Received uint64 `json:"received"` // from the bus, or for frames from the ring
	Repaired uint64 `json:"repaired"` // from the publisher's history
	Lost     uint64 `json:"lost"`
	Skipped  uint64 `json:"skipped"` // not wanted: from before this subscriber, or frames that a newer one replaced
}

// State is a worker's word on itself, once a second.
type State struct {
	Header
	Program     string             `json:"program"`
	PID         int                `json:"pid"`
	Ready       bool               `json:"ready"`
	Status      string             `json:"status"`            // one line for people
	Trouble     string             `json:"trouble,omitempty"` // what is wrong at the moment
	ProgressNS  int64              `json:"progress_ns"`       // CLOCK_BOOTTIME of the work loop's last step
	Counters    map[string]uint64  `json:"counters"`          // only grow
	Gauges      map[string]float64 `json:"gauges,omitempty"`  // the unit is in the name
	Sources     []Account          `json:"sources,omitempty"` // what it reads
	Published   map[Topic]uint64   `json:"published,omitempty"`
	Dropped     map[Topic]uint64   `json:"dropped,omitempty"`
	Subscribers []string           `json:"subscribers,omitempty"` // who reads it, as far as they said
	Box         json.RawMessage    `json:"box,omitempty"`         // the supervisor's: the whole box, one JSON object
}

// Errors of messages that are not accepted.
var (
	// ErrVersion says that a message is of a version this program does not know.
	ErrVersion = errors.New("unknown version")
	// ErrMalformed says that a message breaks the protocol.
	ErrMalformed = errors.New("malformed message")
)
