package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"

	"github.com/perch-edge/perch/pkg/msg"
)

// component is one entity of Home Assistant, by the keys of its MQTT integration.
type component map[string]any

// ObjectID is a node's name as Home Assistant wants it in discovery topics: letters, digits, - and _.
// What is none of these, and _ itself, is written as _ and two hexadecimal digits a byte.
func ObjectID(node string) string {
	var b strings.Builder
	for _, c := range []byte(node) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	return b.String()
}

// announcement is the message of Home Assistant's device discovery
// (https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload).
func (h *Home) announcement(components map[string]component) Publication {
	device := map[string]any{"identifiers": []string{"perch-" + h.cfg.Node}, "name": h.cfg.Node, "manufacturer": "perch", "model": "edge box"}
	if h.cfg.Version != "" {
		device["sw_version"] = h.cfg.Version
	}
	if h.cfg.Area != "" {
		device["suggested_area"] = h.cfg.Area
	}
	origin := map[string]any{"name": "perch"}
	if h.cfg.Version != "" {
		origin["sw_version"] = h.cfg.Version
	}
	body, err := json.Marshal(map[string]any{"device": device, "origin": origin, "components": components})
	if err != nil {
		panic("format: marshal an announcement: " + err.Error()) // strings and numbers only
	}
	return Publication{Topic: h.configTopic(), Body: body, Retain: true}
}

// components are all that the box has, as far as it is known.
func (h *Home) components() map[string]component {
	all := map[string]component{}
	for at, s := range h.streams {
		for _, column := range s.Columns {
			key := fmt.Sprintf("%s.%s.%s", at.source, at.stream, column)
			all[key] = h.entity(key, h.sensor(s, column))
		}
	}
	for at, d := range h.detectors {
		key := fmt.Sprintf("%s.%s", at.source, at.stream)
		all[key] = h.entity(key, component{
			"platform": "event", "name": title(string(at.source)), "event_types": append([]string{other}, without(d.Labels, other)...),
			"state_topic": RecordTopic(h.cfg.Prefix, h.cfg.Node, at.source, at.stream), "availability": h.availability(""),
		})
	}
	if p := h.cfg.Picture; p != nil {
		key := string(p.Source)
		all[key] = h.entity(key, component{
			"platform": "image", "name": title(key), "image_topic": h.pictureTopic(), "content_type": "image/jpeg", "availability": h.availability(""),
		})
	}
	return all
}

func without(list []string, one string) (rest []string) {
	for _, s := range list {
		if s != one {
			rest = append(rest, s)
		}
	}
	return rest
}

// entity gives a component the id under which Home Assistant keeps what a person sets of it.
func (h *Home) entity(key string, c component) component {
	c["unique_id"] = "perch." + ObjectID(h.cfg.Node) + "." + key
	c["availability_mode"] = "all"
	c["qos"] = 1
	return c
}

// sensor is the component of one column.
func (h *Home) sensor(s *homeStream, column string) component {
	q := QuantityOf(column)
	name := string(s.Source) + " " + q.Name
	for at := range h.streams {
		if at.source == s.Source && at.stream != s.Stream {
			name = string(s.Source) + " " + string(s.Stream) + " " + q.Name
		}
	}
	c := component{
		"platform": "sensor", "name": title(name),
		"state_topic": RecordTopic(h.cfg.Prefix, h.cfg.Node, s.Source, s.Stream),
		// null becomes None, which is an unknown value; a template that failed would keep the last one.
		"value_template": fmt.Sprintf("{{ value_json[%q] | default(none) }}", column),
		"expire_after":   int(math.Ceil(s.expire.Seconds())),
		"availability":   h.availability(s.Source),
	}
	for key, value := range map[string]string{"unit_of_measurement": q.Unit.Display, "device_class": q.Class.Device, "state_class": q.Class.State} {
		if value != "" {
			c[key] = value
		}
	}
	return c
}

// availability are the topics that must all be online: the box, and the sensor if there is one.
func (h *Home) availability(source msg.Source) []map[string]string {
	list := []map[string]string{{"topic": StatusTopic(h.cfg.Prefix, h.cfg.Node)}}
	if source != "" {
		list = append(list, map[string]string{"topic": h.sourceStatus(source)})
	}
	return list
}

// title is a name for people: "air-2 soil_moisture" becomes "Air 2 soil moisture".
func title(name string) string {
	name = strings.NewReplacer("-", " ", "_", " ").Replace(name)
	return strings.ToUpper(name[:1]) + name[1:]
}

// unlearned reports whether a component is of a stream whose columns are not known yet.
func (h *Home) unlearned(key string) bool {
	words := strings.SplitN(key, ".", 3)
	if len(words) != 3 {
		return false
	}
	s := h.streams[address{msg.Source(words[0]), msg.Stream(words[1])}]
	return s != nil && s.Columns == nil
}

// Picture is where a jpegwriter keeps its newest picture.
type Picture struct {
	Source msg.Source // the jpegwriter
	Dir    string     // its folder: cache_dir, or its dir
	File   string     // its latest
	Most   int64      // bytes; 0 is 1 MiB
}

// pictureState is which picture was published last.
type pictureState struct {
	published time.Time // its time of modification
	trouble   string    // that was logged
}

// pictureTopic has a dot, as no stream's has.
func (h *Home) pictureTopic() string {
	return RecordTopic(h.cfg.Prefix, h.cfg.Node, h.cfg.Picture.Source, "latest.jpg")
}

// newPicture is the picture where it has changed. It is not retained: it would be taken for a new
// one at each start of Home Assistant.
func (h *Home) newPicture() []Publication {
	if h.cfg.Picture == nil {
		return nil
	}
	body, err := h.cfg.Picture.read(&h.picture.published)
	if errors.Is(err, fs.ErrNotExist) { // there is none yet
		err = nil
	}
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if trouble != h.picture.trouble && trouble != "" && h.cfg.Log != nil {
		h.cfg.Log.Warn("the newest picture is not sent", "err", err)
	}
	h.picture.trouble = trouble
	if body == nil {
		return nil
	}
	return []Publication{{Topic: h.pictureTopic(), Body: body}}
}

// read returns the picture, where it is another than the one of that time.
func (p *Picture) read(published *time.Time) ([]byte, error) {
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	st, err := root.Lstat(p.File)
	if err != nil || st.ModTime().Equal(*published) {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s/%s is no regular file (%s)", p.Dir, p.File, st.Mode())
	}
	f, err := root.Open(p.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	most := p.Most
	if most == 0 {
		most = 1 << 20
	}
	body, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	*published = st.ModTime()
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s/%s has more than %d bytes: set a smaller size or quality", p.Dir, p.File, most)
	}
	return body, nil
}
