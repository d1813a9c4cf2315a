package format

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

const (
	// freshFor is how long a value counts at least, however often it is measured.
	freshFor = 10 * time.Second
	// apart is how long a label must have been away until it is an event again.
	apart = 10 * time.Second
	// readBack is how long to wait for what was announced before.
	readBack = 2 * time.Second
	// spread is the time over which boxes announce themselves again to a Home Assistant that restarts.
	spread = 3 * time.Second
)

// HomeConfig is what Home Assistant is to know of the box.
type HomeConfig struct {
	Node      string
	Prefix    string // topic_prefix
	Discovery string // discovery_prefix
	Version   string // of perch
	Area      string // where the box is, for people; "" is not known
	Streams   []HomeStream
	Detectors []HomeDetector
	Picture   *Picture // nil is none
	Log       *slog.Logger
}

// HomeStream is a stream of readings. Columns may be nil: they are learned from the first reading.
type HomeStream struct {
	Source  msg.Source
	Stream  msg.Stream
	Period  time.Duration // from reading to reading, as they are sent
	Columns []string
}

// HomeDetector is a detector, and the labels that its objects may have, as far as they are known.
type HomeDetector struct {
	Source msg.Source
	Stream msg.Stream
	Labels []string
}

// address is a stream of a source.
type address struct {
	source msg.Source
	stream msg.Stream
}

// Home is the format of Home Assistant. A reading is an object of its columns, a detection the event
// that a label appeared. One retained message of its device discovery announces what the box has;
// what was announced before and is not there any more is taken out.
//
// Home Assistant takes what comes for what is now: see Late.
type Home struct {
	cfg HomeConfig

	mu        sync.Mutex // guards what is below
	streams   map[address]*homeStream
	detectors map[address]*homeDetector
	announced map[string]string // what the broker has: platforms by component
	early     bool              // connected, and what was announced before is not known yet
	due       time.Time         // when to announce; zero is not at all
	picture   pictureState
}

type homeStream struct {
	HomeStream
	seen      time.Time // when the last reading was sent
	published string    // the status that was published; "" is none
	expire    time.Duration
}

type homeDetector struct {
	HomeDetector
	last map[string]sight
}

// sight is when a label was seen last, and the record that made an event of it.
type sight struct {
	at time.Time
	id string
}

// NewHome makes the format. It fails where a stream's topic would be another's status.
func NewHome(cfg HomeConfig) (*Home, error) {
	h := &Home{cfg: cfg, streams: map[address]*homeStream{}, detectors: map[address]*homeDetector{}}
	for _, s := range cfg.Streams {
		if s.Stream == "status" {
			return nil, fmt.Errorf("stream %s.%s: homeassistant publishes whether a sensor has data under that name: want another", s.Source, s.Stream)
		}
		h.streams[address{s.Source, s.Stream}] = &homeStream{HomeStream: s, expire: max(freshFor, 3*s.Period)}
	}
	for _, d := range cfg.Detectors {
		d.Labels = slices.Clone(d.Labels)
		h.detectors[address{d.Source, d.Stream}] = &homeDetector{HomeDetector: d, last: map[string]sight{}}
	}
	return h, nil
}

// Late reports whether a record is too old to be sent: its value would be shown as that of now.
func (h *Home) Late(r *record.Record, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	limit := freshFor
	if s := h.streams[address{r.Source, r.Stream}]; s != nil {
		limit = s.expire
	}
	return now.Sub(r.Time.Time) > limit
}

// Batch is one record a message.
func (*Home) Batch() Batch { return Batch{MediaType: "application/json", Most: 1} }

// Encode writes a reading's values by column, or the event of a detection. It skips all other
// records, and detections without a label that has just appeared.
func (h *Home) Encode(r *record.Record) ([]byte, error) {
	switch r.Kind {
	case msg.KindReading:
		m, err := r.Reading()
		if err != nil {
			return nil, err
		}
		return h.reading(&m, time.Now()), nil
	case msg.KindDetection:
		m, err := r.Detection()
		if err != nil {
			return nil, err
		}
		return h.detection(&m, r.ID())
	}
	return nil, ErrSkip
}

// reading writes {"temperature_c":21.5,"humidity_pct":null}. A value that was not measured is null,
// which Home Assistant shows as unknown. Columns that were announced and are missing are null too.
func (h *Home) reading(m *msg.Reading, now time.Time) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := address{m.Source, m.Stream}
	s := h.streams[at]
	if s == nil {
		s = &homeStream{HomeStream: HomeStream{Source: m.Source, Stream: m.Stream}, expire: freshFor}
		h.streams[at] = s
	}
	s.seen = now
	if !slices.Equal(s.Columns, m.Columns) {
		s.Columns = slices.Clone(m.Columns)
		h.announceSoon(now)
	}
	body := []byte{'{'}
	for i, column := range m.Columns {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(strconv.AppendQuote(body, column), ':') // a column's name needs no escapes
		if v := m.Values[i]; math.IsNaN(v) || math.IsInf(v, 0) || m.Bad[column] != "" {
			body = append(body, "null"...)
		} else {
			body = strconv.AppendFloat(body, v, 'g', -1, 64)
		}
	}
	return append(body, '}')
}

// other is the type of an event whose label was not announced yet.
const other = "other"

// detection writes the event of the best object whose label has not been seen for a while. The same
// record, sent again, is the same event.
func (h *Home) detection(m *msg.Detection, id string) ([]byte, error) {
	if m.Gate != "" { // what was seen before, and nothing has moved since
		return nil, ErrSkip
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	at := address{m.Source, m.Stream}
	d := h.detectors[at]
	if d == nil {
		d = &homeDetector{HomeDetector{m.Source, m.Stream, nil}, map[string]sight{}}
		h.detectors[at] = d
		h.announceSoon(time.Now())
	}
	objects := slices.Clone(m.Objects)
	slices.SortStableFunc(objects, func(a, b msg.Object) int { return cmp.Compare(b.Score, a.Score) })
	var event *msg.Object
	labels := []string{}
	for i := range objects {
		o := &objects[i]
		if slices.Contains(labels, o.Label) {
			continue
		}
		labels = append(labels, o.Label)
		seen, known := d.last[o.Label]
		switch fresh := !known || m.Time.Sub(seen.at) > apart || seen.id == id; {
		case fresh && event == nil:
			event = o
			d.last[o.Label] = sight{m.Time.Time, id}
		case !fresh: // one that is fresh too is the next record's event
			d.last[o.Label] = sight{m.Time.Time, seen.id}
		}
	}
	if event == nil {
		return nil, ErrSkip
	}
	kind := event.Label
	if !slices.Contains(d.Labels, kind) {
		d.Labels, kind = append(d.Labels, kind), other
		h.announceSoon(time.Now())
	}
	return json.Marshal(struct {
		Type    string   `json:"event_type"`
		Label   string   `json:"label"`
		Score   float64  `json:"score"`
		Objects []string `json:"objects"` // all labels in the frame
		Time    msg.Time `json:"time"`
	}{kind, event.Label, event.Score, labels, m.Time})
}

// announceSoon has the announcement published at the next opportunity.
func (h *Home) announceSoon(now time.Time) {
	if !h.early && (h.due.IsZero() || h.due.After(now)) {
		h.due = now
	}
}

// Watch lists where Home Assistant says that it has started, and what was announced before.
func (h *Home) Watch() []string { return []string{h.homeStatus(), h.configTopic()} }

func (h *Home) homeStatus() string { return h.cfg.Discovery + "/status" }

// configTopic is the topic of the box's announcement.
func (h *Home) configTopic() string {
	return h.cfg.Discovery + "/device/" + ObjectID(h.cfg.Node) + "/config"
}

// Received takes what was announced before: the first after connecting decides what to take out.
// Later ones are this box's own, or those of another program of its name, with which it does not
// argue.
func (h *Home) Received(topic string, body []byte, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case topic == h.homeStatus() && string(body) == Online:
		h.due = now.Add(rand.N(spread)) // not all boxes at once
		h.early = false
		for _, s := range h.streams {
			s.published = ""
		}
		h.picture.published = time.Time{}
	case topic == h.configTopic():
		h.announced = announced(body)
		if h.early {
			h.early, h.due = false, now
		}
	}
}

// Connected has everything published again.
func (h *Home) Connected(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.early, h.due, h.announced = true, now.Add(readBack), nil
	for _, s := range h.streams {
		s.published = ""
	}
	h.picture.published = time.Time{}
}

// Due returns what has changed: the announcement, which sensors have data, and the picture.
func (h *Home) Due(now time.Time) (list []Publication) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.due.IsZero() && !now.Before(h.due) {
		h.early, h.due = false, time.Time{}
		list = h.announcements()
	}
	for _, at := range slices.SortedFunc(maps.Keys(h.streams), compareAddresses) {
		list = append(list, h.status(at.source, now)...)
	}
	return append(list, h.newPicture()...)
}

func compareAddresses(a, b address) int {
	return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.stream, b.stream))
}

// status is whether a sensor has data, where that has changed: any of its streams' counts.
func (h *Home) status(source msg.Source, now time.Time) []Publication {
	is, published := Offline, ""
	for at, s := range h.streams {
		if at.source != source {
			continue
		}
		if !s.seen.IsZero() && now.Sub(s.seen) <= s.expire {
			is = Online
		}
		published = cmp.Or(published, s.published)
	}
	if is == published {
		return nil
	}
	for at, s := range h.streams {
		if at.source == source {
			s.published = is
		}
	}
	return []Publication{{Topic: h.sourceStatus(source), Body: []byte(is), Retain: true}}
}

func (h *Home) sourceStatus(source msg.Source) string {
	return RecordTopic(h.cfg.Prefix, h.cfg.Node, source, "status")
}

// announcements are the message that takes out what is gone, where something is, and the one that
// stays.
func (h *Home) announcements() (list []Publication) {
	now := h.components()
	all := maps.Clone(now)
	for key, platform := range h.announced {
		if _, there := now[key]; !there && !h.unlearned(key) {
			all[key] = component{"platform": platform} // no more than that takes it out
		}
	}
	if len(all) > len(now) {
		list = append(list, h.announcement(all))
	}
	switch {
	case len(now) > 0:
		list = append(list, h.announcement(now))
	case len(all) > 0:
		list = append(list, Publication{Topic: h.configTopic(), Retain: true}) // nothing is left
	}
	return list
}

// announced are the platforms of the components of an announcement, but for those that it takes out.
func announced(body []byte) map[string]string {
	var was struct {
		Components map[string]component `json:"components"`
	}
	if json.Unmarshal(bytes.TrimSpace(body), &was) != nil { // another program's, or none any more
		return nil
	}
	found := map[string]string{}
	for key, c := range was.Components {
		if platform, ok := c["platform"].(string); ok && len(c) > 1 {
			found[key] = platform
		}
	}
	return found
}
