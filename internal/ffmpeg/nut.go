package ffmpeg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// Timestamped are the last output options of an ffmpeg whose pictures a
// FrameReader reads: every decoded picture, none repeated or left out, each with
// its own timestamp in microseconds, on standard output. Options that choose the
// codec ("-c:v rawvideo", "-c:v mjpeg"), the pixel format and the filters go
// before them.
//
// ffmpeg counts the timestamps from the start of the input; with "-copyts" they
// are those of the input. The container is NUT. It is written without the
// syncpoints that a file has for seeking: ffmpeg's writer would keep each of them
// in memory for as long as it runs.
func Timestamped() []string {
	return []string{"-fps_mode", "passthrough", "-enc_time_base", "1:1000000", "-map_metadata", "-1", "-flush_packets", "1",
		"-strict", "experimental", "-f", "nut", "-syncpoints", "none", "-write_index", "0", "pipe:1"}
}

// FrameReader reads NUT as ffmpeg writes it with the options of Timestamped
// (https://ffmpeg.org/~michael/nut.txt): one video stream. It reads only what
// stands between the pictures. The caller reads the pictures themselves from the
// same reader, so that their pixels go to where they are wanted with no copy in
// between:
//
//	frames := ffmpeg.NewFrameReader(process.Stdout)
//	for {
//		f, err := frames.Next()
//		...
//		n := copy(dst[:f.Bytes], f.Prefix)
//		_, err = io.ReadFull(process.Stdout, dst[n:f.Bytes])
//	}
//
// It is for one goroutine. An error of the reader is final.
type FrameReader struct {
	r    io.Reader
	head [32]byte // what was read of a frame's header and not yet used is head[at:end]
	at   int
	end  int
	used int // bytes of the header
	err  error

	begun    bool
	codes    [256]frameCode
	elided   [][]byte // beginnings that frames leave out; the first is empty
	units    []unit
	unit     unit
	shift    uint
	last     int64 // timestamp of the last frame, in units
	streams  uint64
	packetIn []byte
}

// Frame is what comes before a picture.
type Frame struct {
	Bytes  int           // length of the picture
	PTS    time.Duration // presentation timestamp
	Prefix []byte        // the picture's first bytes; the others are read. As a rule there are none. Valid until Next
}

type frameCode struct {
	flags, stream, mul, lsb, reserved, head uint64
	delta                                   int64
}

type unit struct{ num, den uint64 }

const (
	nutMagic     = "nut/multimedia container\x00"
	nutMain      = 0x4E4D7A561F5F04AD
	nutStream    = 0x4E5311405BF2F9DB
	nutSyncpoint = 0x4E4BE4ADEECA4569

	nutCodedPTS  = 1 << 3
	nutStreamID  = 1 << 4
	nutSizeMSB   = 1 << 5
	nutChecksum  = 1 << 6
	nutReserved  = 1 << 7
	nutSideData  = 1 << 8
	nutHeaderIdx = 1 << 10
	nutMatchTime = 1 << 11
	nutCoded     = 1 << 12
	nutInvalid   = 1 << 13

	maxPacket = 1 << 20 // bytes of a header: far more than one has
	maxFrame  = 1 << 30
)

var errNUT = errors.New("read frames from ffmpeg: not NUT with one video stream")

// NewFrameReader reads from r, which must return no more than is asked for.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next reads up to the next picture. It returns io.EOF at the end, and
// io.ErrUnexpectedEOF in the middle of a header. The caller must have read the
// whole of the picture before.
func (f *FrameReader) Next() (Frame, error) {
	frame := Frame{}
	for f.err == nil && !f.begun {
		f.err = f.begin()
	}
	for found := false; f.err == nil && !found; {
		frame, found, f.err = f.next()
	}
	return frame, f.err
}

func (f *FrameReader) begin() error {
	magic := make([]byte, len(nutMagic))
	if _, err := io.ReadFull(f.r, magic); err != nil {
		return err
	}
	if string(magic) != nutMagic {
		return fmt.Errorf("%w: it begins with %q", errNUT, magic)
	}
	f.begun = true
	return nil
}

// next reads a frame's header, or a packet of another kind.
func (f *FrameReader) next() (frame Frame, found bool, err error) {
	f.at, f.end = 0, 0
	if _, err := io.ReadFull(f.r, f.head[:1]); err != nil {
		return Frame{}, false, err
	}
	if f.head[0] == 'N' {
		return Frame{}, false, cutShort(f.packet())
	}
	frame, err = f.frame(f.codes[f.head[0]])
	return frame, true, cutShort(err)
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// frame reads the fields that follow a frame's code. Each has at least one
// byte, so that as many as there are fields can be read at once: no byte of the
// picture is among them.
func (f *FrameReader) frame(code frameCode) (Frame, error) {
	if code.flags&nutInvalid != 0 || f.streams == 0 {
		return Frame{}, fmt.Errorf("%w: frame code %#x", errNUT, f.head[0])
	}
	flags := code.flags
	if flags&nutCoded != 0 {
		flags ^= f.value(1)
	}
	left := bits.OnesCount64(flags&(nutStreamID|nutCodedPTS|nutSizeMSB|nutMatchTime|nutHeaderIdx|nutReserved)) + int(flags&nutChecksum)/nutChecksum*4
	field := func(flag, otherwise uint64) uint64 {
		if flags&flag == 0 {
			return otherwise
		}
		v := f.value(left)
		left--
		return v
	}
	stream := field(nutStreamID, code.stream)
	pts := f.last + code.delta
	if flags&nutCodedPTS != 0 {
		pts = f.timestamp(field(nutCodedPTS, 0))
	}
	size := code.lsb + code.mul*field(nutSizeMSB, 0)
	field(nutMatchTime, 0)
	head := field(nutHeaderIdx, code.head)
	for range min(field(nutReserved, code.reserved), maxPacket) {
		f.value(1)
	}
	if flags&nutChecksum != 0 {
		f.skip(4)
	}
	if flags&nutSideData != 0 {
		size -= uint64(f.sideData())
	}
	switch {
	case f.err != nil:
		return Frame{}, f.err
	case stream != 0:
		return Frame{}, fmt.Errorf("%w: a frame of stream %d", errNUT, stream)
	case f.at != f.end || size > maxFrame || head >= uint64(len(f.elided)):
		return Frame{}, fmt.Errorf("%w: a frame of %d bytes", errNUT, size)
	}
	if size > 4096 {
		head = 0
	}
	prefix := f.elided[head]
	if uint64(len(prefix)) > size {
		return Frame{}, fmt.Errorf("%w: a frame of %d bytes", errNUT, size)
	}
	f.last = pts
	at, err := f.unit.duration(pts)
	return Frame{Bytes: int(size), PTS: at, Prefix: prefix}, err
}

// sideData skips a frame's side data: two lists of names and values, which count
// as bytes of the frame.
func (f *FrameReader) sideData() (bytes int) {
	begun := f.used
	text := func() { f.skip(int(min(f.value(1), maxPacket))) }
	for range 2 {
		for range min(f.value(1), maxPacket) {
			text() // name
			switch kind := signed(f.value(1)); {
			case kind == -1:
				text()
			case kind == -2:
				text() // type
				text()
			case kind < 0:
				f.value(1)
			}
			if f.err != nil {
				return 0
			}
		}
	}
	return f.used - begun
}

// timestamp decodes a timestamp: either only its lower bits are coded, or all of it
// plus 1<<shift.
func (f *FrameReader) timestamp(coded uint64) int64 {
	whole := uint64(1) << f.shift
	if coded >= whole {
		return int64(coded - whole)
	}
	near := f.last - int64((whole-1)/2)
	return int64((coded-uint64(near))&(whole-1)) + near
}

func (u unit) duration(n int64) (time.Duration, error) {
	hi, lo := bits.Mul64(uint64(max(n, -n)), u.num*uint64(time.Second))
	if u.den == 0 || u.num > math.MaxInt32 || hi >= u.den {
		return 0, fmt.Errorf("%w: timestamp %d of %d/%d s", errNUT, n, u.num, u.den)
	}
	ns, _ := bits.Div64(hi, lo, u.den)
	if ns > math.MaxInt64 {
		return 0, fmt.Errorf("%w: timestamp %d of %d/%d s", errNUT, n, u.num, u.den)
	}
	if n < 0 {
		return -time.Duration(ns), nil
	}
	return time.Duration(ns), nil
}

// value reads a number of a header: seven bits a byte, the highest first. The
// header has at least left more bytes.
func (f *FrameReader) value(left int) (v uint64) {
	for f.err == nil {
		if f.at == f.end {
			f.at, f.end = 0, min(max(left, 1), len(f.head))
			if _, f.err = io.ReadFull(f.r, f.head[:f.end]); f.err != nil {
				return 0
			}
		}
		b := f.head[f.at]
		f.at++
		f.used++
		v = v<<7 | uint64(b&0x7f)
		if b < 0x80 {
			return v
		}
		left = 1
	}
	return 0
}

// skip skips bytes of a header.
func (f *FrameReader) skip(n int) {
	f.used += n
	have := min(f.end-f.at, n)
	f.at += have
	for n -= have; n > 0 && f.err == nil; {
		f.at, f.end = 0, 0
		piece := f.head[:min(n, len(f.head))]
		_, f.err = io.ReadFull(f.r, piece)
		n -= len(piece)
	}
}

// packet reads a packet that begins with a startcode, after its 'N'.
func (f *FrameReader) packet() error {
	if _, err := io.ReadFull(f.r, f.head[1:8]); err != nil {
		return err
	}
	startcode := binary.BigEndian.Uint64(f.head[:8])
	length := f.value(1)
	if length > 4096 {
		f.skip(4)
	}
	if f.err != nil {
		return f.err
	}
	if length < 4 || length > maxPacket {
		return fmt.Errorf("%w: a packet of %d bytes", errNUT, length)
	}
	if cap(f.packetIn) < int(length) {
		f.packetIn = make([]byte, length)
	}
	data := f.packetIn[:length]
	if _, err := io.ReadFull(f.r, data); err != nil {
		return err
	}
	in := &fields{Reader: bytes.NewReader(data[:length-4])} // a checksum ends it
	switch startcode {
	case nutMain:
		f.main(in)
	case nutStream:
		f.stream(in)
	case nutSyncpoint:
		f.syncpoint(in)
	}
	return in.err
}

// fields reads the fields of a packet.
type fields struct {
	*bytes.Reader
	err error
}

func (p *fields) value() (v uint64) {
	for p.err == nil {
		b, err := p.ReadByte()
		if p.err = err; err != nil {
			break
		}
		v = v<<7 | uint64(b&0x7f)
		if b < 0x80 {
			return v
		}
	}
	p.err = fmt.Errorf("%w: a packet ends too early", errNUT)
	return 0
}

func (p *fields) signed() int64 { return signed(p.value()) }

func signed(v uint64) int64 {
	if v++; v&1 != 0 {
		return -int64(v >> 1)
	}
	return int64(v >> 1)
}

func (p *fields) bytes() []byte {
	data := make([]byte, min(p.value(), maxPacket))
	if _, err := io.ReadFull(p.Reader, data); err != nil {
		p.err = fmt.Errorf("%w: a packet ends too early", errNUT)
	}
	return data
}

func (p *fields) refuse(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", errNUT, fmt.Sprintf(format, args...))
	}
}

// main reads what all streams have in common: the units of time, and what each
// value of a frame's first byte stands for.
func (f *FrameReader) main(p *fields) {
	version := p.value()
	if version > 3 {
		p.value() // minor
	}
	f.streams = p.value()
	if p.err == nil && (version < 2 || version > 4 || f.streams != 1) {
		p.refuse("version %d with %d streams", version, f.streams)
	}
	p.value() // max_distance
	f.units = f.units[:0]
	for range min(p.value(), 16) {
		f.units = append(f.units, unit{p.value(), p.value()})
	}
	code := frameCode{mul: 1}
	for i := 0; i < 256 && p.err == nil; {
		code.flags = p.value()
		n := p.value()
		code.lsb, code.reserved = 0, 0
		if n > 0 {
			code.delta = p.signed()
		}
		for j, to := range []*uint64{&code.mul, &code.stream, &code.lsb, &code.reserved} {
			if n > uint64(j)+1 {
				*to = p.value()
			}
		}
		count := code.mul - code.lsb
		if n > 5 {
			count = p.value()
		}
		if n > 6 {
			p.signed() // match
		}
		if n > 7 {
			code.head = p.value()
		}
		for range min(max(n, 8)-8, maxPacket) {
			p.value()
		}
		if count == 0 || count > 256 {
			p.refuse("%d frame codes", count)
		}
		one := code
		for ; count > 0 && i < 256; i++ {
			if i == 'N' {
				f.codes[i] = frameCode{flags: nutInvalid}
				continue
			}
			f.codes[i] = one
			one.lsb++
			count--
		}
	}
	f.elided = append(f.elided[:0], nil)
	if p.err == nil && p.Len() > 0 {
		for range min(p.value(), 128) {
			f.elided = append(f.elided, p.bytes())
		}
	}
}

// stream reads how the one stream counts time.
func (f *FrameReader) stream(p *fields) {
	id, class := p.value(), p.value()
	p.bytes() // fourcc
	base, shift := p.value(), p.value()
	if p.err != nil {
		return
	}
	if id != 0 || class != 0 || base >= uint64(len(f.units)) || shift > 62 {
		p.refuse("stream %d of class %d in unit %d with %d bits", id, class, base, shift)
		return
	}
	f.unit, f.shift = f.units[base], uint(shift)
}

// syncpoint sets the base of the next timestamp.
func (f *FrameReader) syncpoint(p *fields) {
	t := p.value()
	if p.err != nil || len(f.units) == 0 {
		p.refuse("no main header")
		return
	}
	from, n := f.units[t%uint64(len(f.units))], t/uint64(len(f.units))
	if from == f.unit {
		f.last = int64(n)
		return
	}
	if f.unit.num == 0 || from.den == 0 {
		p.refuse("no stream header")
		return
	}
	hi, lo := bits.Mul64(n, from.num*f.unit.den)
	below := from.den * f.unit.num
	if below == 0 || hi >= below {
		p.refuse("time %d", n)
		return
	}
	v, _ := bits.Div64(hi, lo, below)
	f.last = int64(v)
}
