package backlog

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// dictionary is text that messages have in common: short blocks shrink by a quarter
// more. It is part of the format.
const dictionary = `"id":"","state":"born","state":"ready","state":"sent","sidecar":null,"sidecar":{"v":1,"name":"","media":"image/jpeg","media":"video/mp4","bytes":` +
	`"frame_source":"","frame_epoch":"","frame_seq":,"frame_time":"","frame_boot_ns":,"covered_until":,"objects":[{"label":"person","score":0.9,"box":[]}]` +
	`{"v":1,"kind":"file","node":"{"v":1,"kind":"detection","node":"{"v":1,"kind":"reading","node":"","source":"","stream":"environment","epoch":"0002","boot_id":"-4","seq":1` +
	`,"time":"2026-01-01T00:00:00.000000000Z","boot_ns":1000000000,"synced":true,"columns":["temperature_c","pressure_pa","humidity_pct"],"values":[`

// record is an entry as a block keeps it.
type record struct {
	Entry
	ordinal uint64 // its number within its stream: thinning keeps every 2nd, 4th, ... of these
}

// coder turns records into the bodies of blocks and back. It keeps its buffers.
type coder struct {
	raw, out bytes.Buffer
	deflate  *flate.Writer
	inflate  io.ReadCloser
}

func newCoder() *coder { return &coder{inflate: flate.NewReaderDict(nil, []byte(dictionary))} }

// compress compresses the body. The compressor is made when it is needed: it takes a megabyte.
func (c *coder) compress(body []byte) (err error) {
	c.out.Reset()
	if c.deflate == nil {
		if c.deflate, err = flate.NewWriterDict(&c.out, flate.BestCompression, []byte(dictionary)); err != nil {
			return err
		}
	} else {
		c.deflate.Reset(&c.out)
	}
	if _, err := c.deflate.Write(body); err != nil {
		return err
	}
	return c.deflate.Close()
}

// encode makes a block that covers the positions from behind prev to last. The body
// is valid until the next call. It is
//
//	keys: number, then length and text of each
//	positions, classes and keys, numbers in the streams, times, lengths: each as the difference to what is
//	  expected after the one before; a time is expected after the same step again
//	payloads, one behind the other
//
// with numbers as in encoding/binary's varints.
func (c *coder) encode(list []record, prev, last Position) (block, []byte, error) {
	if err := checkSpan(prev, last); err != nil {
		return block{}, nil, err
	}
	b := block{prev: prev, last: last, count: len(list)}
	c.raw.Reset()
	c.putKeys(list)
	for _, r := range list {
		b.events += int(r.Class)
	}
	for _, r := range list {
		c.raw.Write(r.Payload)
	}
	return c.pack(b)
}

func (c *coder) putKeys(list []record) {
	index := map[string]uint64{}
	var keys []string
	for _, r := range list {
		if _, known := index[r.Key]; !known {
			index[r.Key] = uint64(len(keys))
			keys = append(keys, r.Key)
		}
	}
	c.uvarint(uint64(len(keys)))
	for _, k := range keys {
		c.uvarint(uint64(len(k)))
		c.raw.WriteString(k)
	}
	c.putColumns(list, index)
}

func (c *coder) putColumns(list []record, index map[string]uint64) {
	var before Position
	for _, r := range list {
		c.uvarint(uint64(r.Position - before))
		before = r.Position
	}
	for _, r := range list {
		c.uvarint(index[r.Key]<<1 | uint64(r.Class))
	}
	expect := map[string]uint64{}
	for _, r := range list {
		c.varint(int64(r.ordinal - expect[r.Key]))
		expect[r.Key] = r.ordinal + 1
	}
	var ms, step int64
	for _, r := range list {
		ms, step = c.putTime(millis(r.Time), ms, step)
	}
	length := 0
	for _, r := range list {
		c.varint(int64(len(r.Payload) - length))
		length = len(r.Payload)
	}
}

// putTime writes by how much the step from the time before is another than the last step.
func (c *coder) putTime(ms, before, step int64) (now, next int64) {
	c.varint(ms - before - step)
	if before == 0 { // the first step is none
		return ms, 0
	}
	return ms, ms - before
}

// pack compresses the body where that makes it smaller.
func (c *coder) pack(b block) (block, []byte, error) {
	b.raw = c.raw.Len()
	body := c.raw.Bytes()
	if err := c.compress(body); err != nil {
		return block{}, nil, fmt.Errorf("compress block: %w", err)
	}
	if c.out.Len() < len(body) {
		b.flags, body = deflated, c.out.Bytes()
	}
	b.stored, b.sum = len(body), checksum(body)
	return b, body, nil
}

func (c *coder) uvarint(n uint64) { c.raw.Write(binary.AppendUvarint(c.raw.AvailableBuffer(), n)) }
func (c *coder) varint(n int64)   { c.raw.Write(binary.AppendVarint(c.raw.AvailableBuffer(), n)) }

// millis is a time in Unix milliseconds, which is what the log keeps; 0 is none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// decode reads the records of an intact block.
func (c *coder) decode(b block, body []byte) ([]record, error) {
	raw := body
	if b.flags&deflated != 0 {
		if err := c.inflate.(flate.Resetter).Reset(bytes.NewReader(body), []byte(dictionary)); err != nil {
			return nil, fmt.Errorf("read compressed block: %w", err)
		}
		raw = make([]byte, b.raw+1)
		n, err := io.ReadFull(c.inflate, raw)
		if err != io.ErrUnexpectedEOF || n != b.raw { //nolint:errorlint // ReadFull returns it as it is
			return nil, fmt.Errorf("%w: %d bytes behind the compression (%v); want %d", errDamaged, n, err, b.raw)
		}
		raw = raw[:n]
	}
	in := &input{raw: raw}
	list := in.records(b)
	if in.bad {
		return nil, fmt.Errorf("%w: its body is none", errDamaged)
	}
	return list, nil
}

// input reads the body of a block; bad is set by what no log has written.
type input struct {
	raw []byte
	bad bool
}

func (in *input) uvarint() uint64 {
	v, n := binary.Uvarint(in.raw)
	return advance(in, v, n)
}

func (in *input) varint() int64 {
	v, n := binary.Varint(in.raw)
	return advance(in, v, n)
}

func advance[T any](in *input, v T, n int) T {
	if n <= 0 {
		in.bad, in.raw = true, nil
		var none T
		return none
	}
	in.raw = in.raw[n:]
	return v
}

func (in *input) bytes(n int) []byte {
	if n < 0 || n > len(in.raw) {
		in.bad, in.raw = true, nil
		return nil
	}
	text := in.raw[:n:n]
	in.raw = in.raw[n:]
	return text
}

func (in *input) time(before, step int64) (ms, next int64) {
	ms = before + step + in.varint()
	if before == 0 {
		return ms, 0
	}
	return ms, ms - before
}

func (in *input) keys() (keys []string) {
	n := in.uvarint()
	for i := uint64(0); i < n && !in.bad; i++ {
		keys = append(keys, string(in.bytes(int(min(in.uvarint(), maxSegment)))))
	}
	return keys
}

func (in *input) records(b block) []record {
	keys := in.keys()
	list := make([]record, b.count)
	in.positions(list, b)
	for i := range list {
		which := in.uvarint()
		if in.bad || which>>1 >= uint64(len(keys)) {
			in.bad = true
			return nil
		}
		list[i].Key, list[i].Class = keys[which>>1], Class(which&1)
	}
	expect := map[string]uint64{}
	for i := range list {
		list[i].ordinal = expect[list[i].Key] + uint64(in.varint())
		expect[list[i].Key] = list[i].ordinal + 1
	}
	var ms, step int64
	for i := range list {
		ms, step = in.time(ms, step)
		list[i].Time = fromMillis(ms)
	}
	in.payloads(list)
	return list
}

// positions reads positions that ascend within the block's.
func (in *input) positions(list []record, b block) {
	at, before := Position(0), b.prev
	for i := range list {
		at += Position(in.uvarint())
		in.bad = in.bad || at <= before || at > b.last
		list[i].Position, before = at, at
	}
}

func (in *input) payloads(list []record) {
	lengths := make([]int, len(list))
	length := 0
	for i := range list {
		length += int(in.varint())
		lengths[i] = length
	}
	for i := range list {
		list[i].Payload = in.bytes(lengths[i])
	}
	in.bad = in.bad || len(in.raw) > 0
}
