package main

import (
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// limits are what the settings let the outbox do.
func (c *Config) limits() limits {
	l := limits{records: c.BatchRecords, bytes: int(c.BatchBytes), attempts: c.Attempts,
		batchAge: c.BatchAge.D(), after: c.SpoolAfter.D(), sync: c.SpoolSync.D()}
	if c.BatchAge == 0 && strings.HasPrefix(c.To.url.Scheme, "http") {
		l.batchAge = time.Second
	}
	return l
}

// newFormat is what the receiver reads.
func (c *Config) newFormat(n topology.Node) (format.Format, error) {
	o := format.Options{Node: n.Name, Site: n.Location.Site, Software: "perch " + version.String(), User: c.User, Sensors: c.Sensors}
	if p := n.Location.Position; p != nil {
		o.Position = &format.Position{Latitude: float64(p.Latitude), Longitude: float64(p.Longitude), Altitude: p.HeightM}
	}
	return format.New(c.Format, o)
}

// formatOf is the worker's format. What Home Assistant is to know of the box is in the topology.
func (c *Config) formatOf(w *worker.Worker) (format.Format, error) {
	if c.Format != "homeassistant" {
		return c.newFormat(w.Node())
	}
	home, err := c.newHome(w.Topology(), w.Entry(), w.Log)
	if err != nil {
		return nil, worker.BadConfig(err)
	}
	return home, nil
}

// newSink is the way to the receiver.
func (c *Config) newSink(w *worker.Worker, f format.Format) (sink.Sink, error) {
	sent := w.Counter("sent_bytes")
	link := uplink.New(uplink.Settings{Stall: c.StallAfter.D(), Sent: sent.Add})
	o := sink.Options{To: c.To.url, Node: w.Node().Name, Worker: w.Name(), Batch: f.Batch(), Ack: c.Ack, Gzip: c.Gzip,
		Prefix: c.TopicPrefix, Stream: c.Stream, User: c.User, Dial: link.Dial, Stall: c.StallAfter.D(), Records: c.BatchRecords, Bytes: int(c.BatchBytes), Log: w.Log,
		TLS:   func() (*tls.Config, error) { return credential.TLS(c.CAFile, c.ClientCert, c.ClientKey) },
		Count: func(counter string, n uint64) { w.Counter(counter).Add(int(n)) }}
	o.Companion, _ = f.(format.Companion)
	if c.TokenFile != "" {
		o.Token = c.token
	}
	if c.CurveKeyFile != "" {
		o.Curve = c.curveKeys
	}
	return sink.New(o)
}

// checkFormat finds what is wrong with the format, and with where it is sent.
func (c *Config) checkFormat() error {
	if c.To.url == nil {
		return nil // which is wrong enough
	}
	err := format.Fits(c.Format, c.To.url.Scheme)
	if err == nil {
		_, err = c.newFormat(topology.Node{Name: "node"})
	}
	if err == nil && c.Ack && !format.Identifies(c.Format) {
		err = errors.New("ack wants a format that has each record's id: plain or cloudevents")
	}
	return err
}
