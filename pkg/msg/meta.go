package msg

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/perch-edge/perch/pkg/shm"
)

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
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: meta of ring %s: %w", ErrMalformed, name, err)
	}
	return m, nil
}
