// Package format writes records as their receivers want to read them.
//
//	Record --> Encode --> the bytes of one record --> Batch joins several, where a sink sends several at once
//
// A record that a format has no room for, such as a file's record in line protocol, is skipped,
// and the caller counts it.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
)

// ErrSkip is returned for a record that the format has no room for.
var ErrSkip = errors.New("the format has no room for this record")

// Format writes records. Its methods are called by one goroutine.
type Format interface {
	// Encode returns one record's bytes, or an error that is ErrSkip.
	Encode(r *record.Record) ([]byte, error)
	// Batch is how records are joined where several are sent at once.
	Batch() Batch
}

// Batch is how the bytes of several records become one body: Open, the records with Separator
// between them, Close. Its media type is MediaType (RFC 9110 section 8.3.1).
type Batch struct {
	MediaType, Open, Separator, Close string
	// Alone is the media type of one record that is sent as Encode wrote it; "" is MediaType. Over
	// HTTP that is the only record of its request, with batch_records = 1.
	Alone string
	// Strip is how many bytes at either end of a record are left out in a body: the brackets of a
	// record that is an array of its own.
	Strip int
	// Most is how many records a body may hold; 0 is no limit of the format's.
	Most int
	// Header are further HTTP header fields, such as the receiver's name for the sensor.
	Header map[string]string
	// BareToken says that the Authorization field is the token alone, without "Bearer" before it.
	BareToken bool
}

// One is the batch for a receiver that wants a request for each record: the record as Encode wrote
// it, where that has a media type of its own.
func (b Batch) One() Batch {
	if b.Most = 1; b.Alone != "" {
		b.MediaType, b.Open, b.Separator, b.Close, b.Strip = b.Alone, "", "", "", 0
	}
	return b
}

// Join is one body of several records.
func (b Batch) Join(records [][]byte) []byte {
	size := len(b.Open) + len(b.Close)
	for _, r := range records {
		size += len(r) + len(b.Separator)
	}
	body := append(make([]byte, 0, size), b.Open...)
	for i, r := range records {
		if i > 0 {
			body = append(body, b.Separator...)
		}
		body = append(body, r[b.Strip:len(r)-b.Strip]...)
	}
	return append(body, b.Close...)
}

// plain writes the bus header as it is.
type plain struct{}

// Encode returns the record's own JSON, in one line however its publisher spaced it.
func (plain) Encode(r *record.Record) ([]byte, error) {
	if bytes.IndexByte(r.Raw(), '\n') < 0 && bytes.IndexByte(r.Raw(), '\r') < 0 {
		return r.Raw(), nil
	}
	var line bytes.Buffer
	if err := json.Compact(&line, r.Raw()); err != nil {
		return nil, fmt.Errorf("encode record %s: %w", r.ID(), err)
	}
	return line.Bytes(), nil
}

// Batch is a JSON array.
func (plain) Batch() Batch {
	return Batch{MediaType: "application/json", Open: "[", Separator: ",", Close: "]"}
}
