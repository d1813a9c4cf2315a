package main

import (
	"crypto/tls"
	"strings"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/credential"
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
func (c *Config) newFormat(*worker.Worker) (format.Format, error) {
	return format.New(string(c.Format))
}

// newSink is the way to the receiver.
func (c *Config) newSink(w *worker.Worker, f format.Format) (sink.Sink, error) {
	o := sink.Options{To: c.To.url, Node: w.Node().Name, Worker: w.Name(), Batch: f.Batch(), Ack: c.Ack, Gzip: c.Gzip,
		User: c.User, Stall: c.StallAfter.D(), Records: c.BatchRecords, Bytes: int(c.BatchBytes), Log: w.Log,
		TLS: func() (*tls.Config, error) { return credential.TLS(c.CAFile, c.ClientCert, c.ClientKey) }}
	if c.TokenFile != "" {
		o.Token = c.token
	}
	return sink.New(o)
}
