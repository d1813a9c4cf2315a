package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/reduce"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Config is the table [worker.NAME].
type Config struct {
	To     Target `toml:"to" doc:"the receiver: tcp://HOST:PORT, tls://, unix:/PATH, ws://, wss://, http://, https://, mqtt://, mqtts://, nats:// or zmq+tcp://"`
	Format string `toml:"format" doc:"what is sent: plain, cloudevents, senml, line, homeassistant, opensensemap or sensor.community"`

	Kinds   []msg.Kind        `toml:"kinds" doc:"what is sent of the sources: reading, detection, file, state; default: all but state"`
	Streams []string          `toml:"streams" doc:"which streams, as STREAM or SOURCE.STREAM; default: all"`
	Columns []string          `toml:"columns" doc:"which columns of readings; default: all"`
	Every   topology.Duration `toml:"every" doc:"one reading of each stream in that time, 1s to 24h, made by reduce; 0s sends each reading"`
	Reduce  string            `toml:"reduce" doc:"how the readings of that time become one: mean, min, max or last"`
	Box     topology.Duration `toml:"box" doc:"how often the state of the whole box is sent too, 1s to 24h, as supervisor status shows it; 0s is never"`

	Ack         bool              `toml:"ack" doc:"tcp, tls, unix, ws and wss: a record is delivered when the receiver has answered with its id"`
	Gzip        bool              `toml:"gzip" doc:"http: compress bodies (Content-Encoding: gzip); the receiver must be able to read that"`
	TopicPrefix string            `toml:"topic_prefix" doc:"mqtt and nats: the first word of topics and subjects"`
	Stream      string            `toml:"stream" doc:"nats: the JetStream stream that must take the records; default: the one that the server chooses by subject"`
	Discovery   string            `toml:"discovery_prefix" doc:"homeassistant: the topic that Home Assistant finds devices under"`
	Picture     string            `toml:"picture" doc:"homeassistant: the jpegwriter whose newest picture is shown"`
	Sensors     map[string]string `toml:"sensors" doc:"opensensemap: the id that each column has there; sensor.community: the pin of each stream"`

	User          string `toml:"user" doc:"the name that goes with token_file: mqtt, nats, and http with a password"`
	TokenFile     string `toml:"token_file" doc:"file with the bearer token, or with the password where user is set, or NATS credentials; or credential:NAME, of systemd; nobody else may read it"`
	CAFile        string `toml:"ca_file" doc:"certificates (PEM) that the receiver's is verified with; default: the system's"`
	ClientCert    string `toml:"client_cert" doc:"certificate (PEM) that is shown to the receiver"`
	ClientKey     string `toml:"client_key" doc:"its private key (PEM); nobody else may read it"`
	CurveKeyFile  string `toml:"curve_key_file" doc:"zmq+tcp: this box's CURVE secret key (Z85, one line); nobody else may read it"`
	CurveReceiver string `toml:"curve_receiver_key" doc:"zmq+tcp: the receiver's CURVE public key (Z85)"`

	BatchRecords int               `toml:"batch_records" doc:"most records in one batch, 1 to 10000"`
	BatchBytes   topology.Bytes    `toml:"batch_bytes" doc:"most bytes in one batch, 1KiB to 64MiB; one larger record is sent alone"`
	BatchAge     topology.Duration `toml:"batch_age" doc:"least time between two batches, while they are not full, up to 1m; 0s is 1s for http and https, and none for others"`

	SpoolAfter topology.Duration `toml:"spool_after" doc:"a record that was not acknowledged within this time, up to 10m, is written to disk; 0s writes each before it is sent"`
	SpoolSync  topology.Duration `toml:"spool_sync" doc:"how often records are written to disk and synced while the link is down, up to 10m: what a power cut may cost"`
	SpoolMost  topology.Bytes    `toml:"spool_most" doc:"most bytes that wait on disk, at least 4MiB; beyond it the oldest readings are thinned, and detections and file records go last"`

	Attempts   int               `toml:"attempts" doc:"refusals of a record, 1 to 100, after which it is set aside if others were taken meanwhile"`
	StallAfter topology.Duration `toml:"stall_after" doc:"time without any progress after which an attempt has failed, 1s to 1h"`
	RetryMost  topology.Duration `toml:"retry_most" doc:"longest pause between attempts, 1s to 24h; the pauses grow from a second, at random"`
}

// DefaultConfig has no receiver: only the user can choose where data go.
func DefaultConfig() Config {
	return Config{
		Format: "plain", Reduce: "mean", TopicPrefix: "perch", Discovery: "homeassistant",
		BatchRecords: 500, BatchBytes: 1e6,
		SpoolAfter: topology.Duration(5 * time.Second), SpoolSync: topology.Duration(10 * time.Second), SpoolMost: 256e6,
		Attempts: 5, StallAfter: topology.Duration(30 * time.Second), RetryMost: topology.Duration(5 * time.Minute),
	}
}

// Validate checks what the types cannot, and that the files of the settings are there and good.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	if c.To.url == nil {
		bad("to", "no receiver: %w", sink.ErrScheme)
	} else if err := c.To.check(c); err != nil {
		bad("to", "%w", err)
	}
	errs = append(errs, c.checkUnused()...)
	if err := c.checkFormat(); err != nil {
		bad("format", "%w", err)
	}
	if err := c.checkPrefix(); err != nil {
		bad("topic_prefix", "%w", err)
	}
	if _, err := c.choice(nil); err != nil {
		errs = append(errs, err)
	}
	between := func(key string, d topology.Duration, least, most time.Duration) {
		if d.D() < least || d.D() > most {
			bad(key, `want "%s" to "%s"`, topology.Duration(least), topology.Duration(most))
		}
	}
	if _, err := reduce.New(c.Reduce, time.Second); err != nil {
		bad("reduce", "unknown%s", nearest.Hint(c.Reduce, reduce.Ways()))
	}
	if c.Every != 0 {
		between("every", c.Every, time.Second, 24*time.Hour)
	}
	if c.Box != 0 {
		between("box", c.Box, time.Second, 24*time.Hour)
	}
	between("batch_age", c.BatchAge, 0, time.Minute)
	between("spool_after", c.SpoolAfter, 0, 10*time.Minute)
	between("spool_sync", c.SpoolSync, 0, 10*time.Minute)
	between("stall_after", c.StallAfter, time.Second, time.Hour)
	between("retry_most", c.RetryMost, time.Second, 24*time.Hour)
	if c.BatchRecords < 1 || c.BatchRecords > 10_000 {
		bad("batch_records", "want 1 to 10000")
	}
	if c.BatchBytes < 1<<10 || c.BatchBytes > 64<<20 {
		bad("batch_bytes", `want "1KiB" to "64MiB"`)
	}
	if c.SpoolMost < 4<<20 {
		bad("spool_most", `want at least "4MiB"`)
	}
	if c.Attempts < 1 || c.Attempts > 100 {
		bad("attempts", "want 1 to 100")
	}
	return errors.Join(append(errs, c.checkFiles()...)...)
}

// checkUnused finds keys that the receiver's scheme, or the format, does not use: who sets one
// expects something of it.
func (c *Config) checkUnused() (errs []error) {
	scheme := c.To.scheme()
	lines := slices.Contains([]string{"tcp", "tls", "unix"}, scheme)
	sockets := lines || strings.HasPrefix(scheme, "ws")
	encrypted := slices.Contains([]string{"tls", "wss", "https", "mqtts", "nats"}, scheme)
	for _, k := range []struct {
		key       string
		set, used bool
		where     string
	}{
		{"ack", c.Ack, sockets, "only for tcp, tls, unix, ws and wss"},
		{"gzip", c.Gzip, strings.HasPrefix(scheme, "http"), "only for http and https"},
		{"stream", c.Stream != "", scheme == "nats", "only for nats"},
		{"user", c.User != "", !lines && scheme != "zmq+tcp", "not for tcp, tls, unix and zmq+tcp"},
		{"token_file", c.TokenFile != "", !lines && scheme != "zmq+tcp", "not for tcp, tls, unix and zmq+tcp, where client_cert or CURVE proves who the box is"},
		{"ca_file", c.CAFile != "", encrypted, "only for tls, wss, https, mqtts and nats"},
		{"client_cert", c.ClientCert != "", encrypted, "only for tls, wss, https, mqtts and nats"},
		{"curve_key_file", c.CurveKeyFile != "", scheme == "zmq+tcp", "only for zmq+tcp"},
		{"picture", c.Picture != "", c.Format == "homeassistant", "only for format homeassistant"},
		{"sensors", len(c.Sensors) > 0, c.Format == "opensensemap" || c.Format == "sensor.community", "only for formats opensensemap and sensor.community"},
	} {
		if scheme != "" && k.set && !k.used {
			errs = append(errs, topology.Bad(k.key, "%s: leave it out with to = %q and format = %q", k.where, c.To, c.Format))
		}
	}
	return errs
}

// checkPrefix checks topic_prefix as the receiver's protocol wants it.
func (c *Config) checkPrefix() error {
	switch c.To.scheme() {
	case "mqtt", "mqtts":
		return sink.CheckMQTTPrefix(c.TopicPrefix)
	case "nats":
		return sink.CheckNATSPrefix(c.TopicPrefix)
	}
	return nil
}

func (c *Config) checkFiles() (errs []error) {
	errs = c.checkCurve()
	if c.TokenFile != "" {
		if _, err := c.token(); err != nil && !errors.Is(err, credential.ErrElsewhere) {
			errs = append(errs, topology.Bad("token_file", "%w", err))
		}
	}
	return append(errs, credential.Check(c.CAFile, c.ClientCert, c.ClientKey)...)
}

// token reads the secret that goes along: the credentials of NATS as they are, a password, or a
// bearer token.
func (c *Config) token() (string, error) {
	switch scheme := c.To.scheme(); {
	case scheme == "nats":
		text, err := credential.File(c.TokenFile)
		return strings.TrimSpace(string(text)), err
	case c.User != "" || strings.HasPrefix(scheme, "mqtt"):
		return credential.Password(c.TokenFile)
	}
	return credential.Token(c.TokenFile)
}
