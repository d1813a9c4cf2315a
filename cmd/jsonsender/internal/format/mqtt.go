package format

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/pkg/msg"
)

// Publication is a message for an MQTT broker that is no record.
type Publication struct {
	Topic  string
	Body   []byte
	Retain bool // the broker keeps it for those that subscribe later
}

// Companion is a format that has more to publish than records, over a connection that lasts. Its
// methods are called by several goroutines, and by none of them for long.
type Companion interface {
	// Watch lists the topics whose messages are given to Received. They are subscribed to at each
	// connect, before Connected is called.
	Watch() []string
	Received(topic string, body []byte, now time.Time)
	// Connected is called when a connection has been made.
	Connected(now time.Time)
	// Due returns what is to be published now. It is called about once a second.
	Due(now time.Time) []Publication
}

// Latecomer is a format whose receiver has no place for the time of a record: it takes what comes
// for what is now. A record that is late is left out, and the caller counts it.
type Latecomer interface {
	Late(r *record.Record, now time.Time) bool
}

// Payloads of the topics that say whether something is there.
const (
	Online  = "online"
	Offline = "offline"
)

// StatusTopic is where a broker keeps whether a box is connected: <prefix>/<node>/status.
func StatusTopic(prefix, node string) string { return prefix + "/" + TopicWord(node) + "/status" }

// RecordTopic is the topic of a stream's records: <prefix>/<node>/<source>/<stream>.
func RecordTopic(prefix, node string, source msg.Source, stream msg.Stream) string {
	return prefix + "/" + TopicWord(node) + "/" + string(source) + "/" + string(stream)
}

// TopicWord is a name as one word of a topic. What has a meaning in topics or topic filters
// (MQTT 5 section 4.7), and the percent sign itself, is written as in addresses (RFC 3986 section
// 2.1): "shed #2" becomes "shed %232". So are control characters, for which brokers may end the
// connection (section 1.5.4).
func TopicWord(name string) string {
	var b strings.Builder
	for _, r := range name {
		if !unicode.IsControl(r) && r&0xfffe != 0xfffe && !strings.ContainsRune("+#/%", r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
