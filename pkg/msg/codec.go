package msg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/perch-edge/perch/pkg/shm"
)

// Message is a message as it came: its header read, its body perhaps not yet.
type Message struct {
	Header
	raw     []byte // the header part, JSON
	Payload []byte // the optional third part
	body    any    // as check read it: a *Reading, *Detection, *File or *State
}

// Raw is the header part as it came: one JSON object.
func (m *Message) Raw() json.RawMessage { return m.raw }

// check reads the body, whatever the kind, and keeps it: a subscriber must know
// whether a message can be used before it counts it as received.
func (m *Message) check() (err error) {
	switch m.Kind {
	case KindReading:
		m.body, err = kept(m.Reading())
	case KindDetection:
		m.body, err = kept(m.Detection())
	case KindFile:
		m.body, err = kept(m.File())
	case KindState:
		m.body, err = kept(m.State())
	}
	return err
}

func kept[T any](body T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return &body, nil
}

// Reading reads the body of a reading.
func (m *Message) Reading() (Reading, error) {
	if r, read := m.body.(*Reading); read {
		return *r, nil
	}
	r := Reading{Header: m.Header}
	var buf [24]field
	all, err := m.has(KindReading, buf[:0])
	if err == nil {
		err = r.decode(all)
	}
	if err == nil {
		err = r.check()
	}
	return r, m.malformed(err)
}

// Frame reads the body of a frame's descriptor.
func (m *Message) Frame() (FrameMessage, error) { return body[FrameMessage](m, KindFrame) }

// Detection reads the body of a detection.
func (m *Message) Detection() (Detection, error) { return body[Detection](m, KindDetection) }

// File reads the body of a file event.
func (m *Message) File() (File, error) { return body[File](m, KindFile) }

// State reads the body of a worker's state.
func (m *Message) State() (State, error) { return body[State](m, KindState) }

// checked is a body that can say what is wrong with it.
type checked interface {
	header() *Header
	check() error
}

func body[T any, P interface {
	*T
	checked
}](m *Message, want Kind) (T, error) {
	if read, ok := m.body.(*T); ok {
		return *read, nil
	}
	var b T
	_, err := m.has(want, nil)
	if err == nil {
		err = json.Unmarshal(m.raw, &b)
	}
	*P(&b).header() = m.Header // as it was accepted
	if err == nil {
		err = P(&b).check()
	}
	return b, m.malformed(err)
}

// has says whether the message is of that kind, with all of its keys, and
// appends its fields to buf.
func (m *Message) has(want Kind, buf []field) ([]field, error) {
	if m.Kind != want {
		return nil, fmt.Errorf("it is a %s: want a %s", m.Kind, want)
	}
	all, err := fields(m.raw, buf)
	if err != nil {
		return nil, err
	}
	for _, key := range bodyKeys(want) {
		i := slices.IndexFunc(all, func(f field) bool { return string(f.key) == key })
		if i < 0 || (string(all[i].value) == "null" && key != "sidecar") {
			return nil, fmt.Errorf("without %s", key)
		}
	}
	return all, nil
}

func (m *Message) malformed(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, m.ID(), err)
	}
	return nil
}

// decode reads what a reading adds to its header. Readings are the messages
// that come by the ten thousand: nothing else of them is parsed twice.
func (r *Reading) decode(all []field) (err error) {
	for _, f := range all {
		switch string(f.key) {
		case "columns":
			err = json.Unmarshal(f.value, &r.Columns)
		case "values":
			err = r.Values.UnmarshalJSON(f.value)
		case "bad":
			err = json.Unmarshal(f.value, &r.Bad)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Decode reads a message's parts. It fails with ErrVersion or ErrMalformed and
// accepts nothing that is too large, badly named, or that says one thing in
// its topic and another in its header. Unknown header keys are left alone.
func Decode(parts [][]byte) (Message, error) {
	if len(parts) < 2 {
		return Message{}, fmt.Errorf("%w: %d parts: want topic, header and perhaps a payload", ErrMalformed, len(parts))
	}
	m := Message{raw: parts[1]}
	if len(m.raw) > maxHeader {
		return Message{}, fmt.Errorf("%w: %.80q: header of %d bytes: want at most %d", ErrMalformed, parts[0], len(m.raw), maxHeader)
	}
	if err := m.Header.decode(m.raw); err != nil {
		return Message{}, fmt.Errorf("%.80q: %w", parts[0], err)
	}
	if len(parts) == 3 {
		m.Payload = parts[2]
	}
	if len(parts) > 3 || len(m.Payload) > maxPayload {
		return Message{}, fmt.Errorf("%w: %.80q: %d parts, payload of %d bytes: want 3 at most, and %d",
			ErrMalformed, parts[0], len(parts), len(m.Payload), maxPayload)
	}
	if err := m.Header.check(); err != nil {
		return Message{}, fmt.Errorf("%w: %.80q: %w", ErrMalformed, parts[0], err)
	}
	if string(parts[0]) != string(m.Topic()) {
		return Message{}, fmt.Errorf("%w: topic %.80q with a header of %s", ErrMalformed, parts[0], m.Topic())
	}
	return m, nil
}

// decode reads the common keys. The version decides before anything else is
// looked at: a later version may give the other keys other types.
func (h *Header) decode(raw []byte) error {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return fmt.Errorf("%w: header is not JSON in UTF-8", ErrMalformed)
	}
	var buf [24]field
	all, err := fields(raw, buf[:0])
	if err == nil {
		err = h.version(all)
	}
	if err != nil {
		return err
	}
	known := 0
	for _, f := range all {
		is, err := h.set(string(f.key), f.value)
		if err != nil {
			return fmt.Errorf("%w: header key %s = %.80s: %w", ErrMalformed, f.key, f.value, err)
		}
		if is {
			known++
		}
	}
	if known < commonKeys {
		return fmt.Errorf("%w: header without %s", ErrMalformed, missing(all))
	}
	return nil
}

func (h *Header) version(all []field) error {
	for _, f := range all {
		if string(f.key) != "v" {
			continue
		}
		switch {
		case string(f.value) == strconv.Itoa(Version):
			h.Version = Version
			return nil
		case len(bytes.Trim(f.value, "0123456789")) == 0:
			return fmt.Errorf("%w %.20s: want %d", ErrVersion, f.value, Version)
		}
		return fmt.Errorf("%w: version %.20s: want a whole number", ErrMalformed, f.value)
	}
	return fmt.Errorf("%w: header without v", ErrMalformed)
}

// commonKeys is how many headerKeys there are.
const commonKeys = 11

// headerKeys are what a header of any kind must have, bodyKeys what each adds.
func headerKeys() [commonKeys]string {
	return [...]string{"v", "kind", "node", "source", "stream", "epoch", "boot_id", "seq", "time", "boot_ns", "synced"}
}

func bodyKeys(k Kind) []string {
	switch k {
	case KindReading:
		return []string{"columns", "values"}
	case KindFrame:
		return []string{"ring", "slot", "generation", "size", "format", "width", "height", "planes", "hz"}
	case KindDetection:
		return []string{"frame_source", "frame_epoch", "frame_seq", "frame_time", "frame_boot_ns", "covered_until", "objects"}
	case KindFile:
		return []string{"id", "state", "sidecar"}
	}
	return []string{"program", "pid", "ready", "status", "progress_ns", "counters"}
}

func missing(all []field) (keys []string) {
	for _, key := range headerKeys() {
		if !slices.ContainsFunc(all, func(f field) bool { return string(f.key) == key }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// set takes one key of a header, and says whether it is a common one.
func (h *Header) set(key string, value []byte) (known bool, err error) {
	var text string
	switch key {
	case "v":
	case "kind":
		text, err = unquote(value)
		h.Kind = Kind(text)
	case "node":
		h.Node, err = unquote(value)
	case "source":
		text, err = unquote(value)
		h.Source = Source(text)
	case "stream":
		text, err = unquote(value)
		h.Stream = Stream(text)
	case "epoch":
		if text, err = unquote(value); err == nil {
			h.Epoch, err = shm.ParseEpoch(text)
		}
	case "boot_id":
		h.BootID, err = unquote(value)
	case "seq":
		var n uint64
		n, err = strconv.ParseUint(string(value), 10, 64)
		h.Seq = Seq(n)
	case "time":
		err = h.Time.UnmarshalJSON(value)
	case "boot_ns":
		h.BootNS, err = strconv.ParseInt(string(value), 10, 64)
	case "synced":
		h.Synced = string(value) == "true"
		if !h.Synced && string(value) != "false" {
			err = errors.New("want true or false")
		}
	default:
		return false, nil
	}
	return true, err
}

// headerPrefix is the part of a stream's headers that never changes, from the
// opening brace to before the sequence number.
func headerPrefix(kind Kind, node string, source Source, stream Stream, epoch Epoch, bootID string) []byte {
	quoted, err := json.Marshal(node)
	if err != nil {
		panic("msg: marshal a string: " + err.Error())
	}
	return fmt.Appendf(nil, `{"v":%d,"kind":%q,"node":%s,"source":%q,"stream":%q,"epoch":%q,"boot_id":%q,"seq":`,
		Version, kind, quoted, source, stream, epoch, bootID)
}

func appendStamp(b []byte, seq uint64, s Stamp) []byte {
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, `,"time":"`...)
	b = s.Wall.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","boot_ns":`...)
	b = strconv.AppendInt(b, int64(s.Boot), 10)
	b = append(b, `,"synced":`...)
	return strconv.AppendBool(b, s.Synced)
}
