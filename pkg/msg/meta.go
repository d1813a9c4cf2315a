package msg

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/perch-edge/perch/pkg/shm"
)

// ringMeta is what a ring says of itself: it makes the ring readable without
// any message.
type ringMeta struct {
	Kind   Kind   `json:"kind"`
	Topic  Topic  `json:"topic"`
	Node   string `json:"node"`
	BootID string `json:"boot_id"`
	*Geometry
}

func (m ringMeta) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic("msg: marshal ring meta: " + err.Error()) // checked strings and numbers only
	}
	return text
}

// ownsRing says whether a ring is one of the source's.
func ownsRing(source Source, name shm.Name) bool {
	return strings.HasPrefix(string(name), string(source)+".")
}

// readMeta reads what a ring says of itself.
func readMeta(dir *shm.Dir, name shm.Name) (ringMeta, error) {
	text, err := dir.Meta(name)
	if err != nil {
		return ringMeta{}, err
	}
	return decodeMeta(name, text)
}

func decodeMeta(name shm.Name, text []byte) (m ringMeta, err error) {
	if err = json.Unmarshal(text, &m); err == nil {
		err = m.check(name)
	}
	if err != nil {
		return ringMeta{}, fmt.Errorf("%w: meta of ring %s: %w", ErrMalformed, name, err)
	}
	return m, nil
}

func (m *ringMeta) check(name shm.Name) error {
	kind, source, stream, err := m.Topic.Split()
	switch {
	case err != nil:
		return err
	case kind != m.Kind || ringName(source, stream) != name:
		return fmt.Errorf("topic %s of kind %s in ring %s", m.Topic, m.Kind, name)
	case kind == KindFrame && m.Geometry == nil:
		return errors.New("frames without a geometry")
	case kind == KindFrame:
		return m.Geometry.check(maxFrame)
	}
	m.Geometry = nil
	return nil
}
