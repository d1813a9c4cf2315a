package backlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Segments are read and written in pages, the unit that a disk tears.
const (
	pageBytes   = 4096
	headerBytes = 40
	blockMagic  = 0xb10c
	deflated    = 1 // flag: the body is compressed

	maxRecords  = 4096 // in a block
	maxPosition = Position(1) << 60
)

// errDamaged marks what a log never wrote.
var errDamaged = errors.New("damaged block")

// block is the header of a block, little endian in the file:
//
//	0  u32 CRC-32C of the block's offset (u64) and of bytes 4 to 39
//	4  u16 magic, u8 flags, u8 level of thinning
//	8  u32 number of the segment; another one is what the file held before
//	12 u32 bytes of the body as it is stored
//	16 u64 position before the block; u32 positions that it covers, thinned ones too
//	28 u16 records, u16 of them events
//	32 u32 bytes of the body without compression
//	36 u32 CRC-32C of the stored body
//
// The header has a checksum of its own, so that a damaged body costs a count that is
// known.
type block struct {
	seq           uint32
	off           int64
	flags, level  uint8
	stored, raw   int
	prev, last    Position // it covers the positions behind prev up to last
	count, events int
	sum           uint32
}

func (b *block) size() int64 { return headerBytes + int64(b.stored) }

// end is the first offset behind the block where another may begin.
func (b *block) end() int64 { return roundUp(b.off+b.size(), 8) }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func checksum(text []byte) uint32 { return crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) }

func headerSum(h []byte, off int64) uint32 {
	var place [8]byte
	binary.LittleEndian.PutUint64(place[:], uint64(off))
	return crc32.Update(checksum(place[:]), crc32.MakeTable(crc32.Castagnoli), h[4:headerBytes])
}

// put writes the header for its offset and segment.
func (b *block) put(h []byte) {
	le := binary.LittleEndian
	le.PutUint16(h[4:], blockMagic)
	h[6], h[7] = b.flags, b.level
	le.PutUint32(h[8:], b.seq)
	le.PutUint32(h[12:], uint32(b.stored))
	le.PutUint64(h[16:], uint64(b.prev))
	le.PutUint32(h[24:], uint32(b.last-b.prev))
	le.PutUint16(h[28:], uint16(b.count))
	le.PutUint16(h[30:], uint16(b.events))
	le.PutUint32(h[32:], uint32(b.raw))
	le.PutUint32(h[36:], b.sum)
	le.PutUint32(h, headerSum(h, b.off))
}

// parseHeader reads the header at an offset of a segment's bytes. It fails for what
// is none, or cannot be one there.
func parseHeader(data []byte, off int64) (b block, ok bool) {
	h := data[off:]
	le := binary.LittleEndian
	if len(h) < headerBytes || le.Uint16(h[4:]) != blockMagic || le.Uint32(h) != headerSum(h, off) {
		return block{}, false
	}
	b = block{
		seq: le.Uint32(h[8:]), off: off, flags: h[6], level: h[7],
		stored: int(le.Uint32(h[12:])), raw: int(le.Uint32(h[32:])),
		prev: Position(le.Uint64(h[16:])), count: int(le.Uint16(h[28:])), events: int(le.Uint16(h[30:])),
		sum: le.Uint32(h[36:]),
	}
	b.last = b.prev + Position(le.Uint32(h[24:]))
	whole := int64(len(h)) >= b.size() && b.raw <= maxSegment && b.prev < maxPosition && b.last > b.prev && b.events <= b.count
	return b, whole
}

// intact reports whether the body is as it was written.
func (b *block) intact(data []byte) bool { return checksum(b.body(data)) == b.sum }

func (b *block) body(data []byte) []byte { return data[b.off+headerBytes : b.off+b.size()] }

// contents is what a segment's bytes hold.
type contents struct {
	blocks  []block // intact, in the order of their offsets
	broken  []block // with an intact header only
	end     int64   // behind the last of both
	suspect bool    // behind end stands what was to be another block
}

// scan finds the blocks of a segment. After damage it looks for the next block at
// each offset that one can have. Blocks of other segments are what a recycled file
// held before.
func scan(data []byte, seq uint32) contents {
	var c contents
	var last Position
	for off := int64(0); off+headerBytes <= int64(len(data)); {
		b, ok := parseHeader(data, off)
		if !ok || b.seq != seq {
			off += 8
			continue
		}
		if b.intact(data) {
			c.blocks = append(c.blocks, b)
		} else {
			c.broken = append(c.broken, b)
		}
		c.end, last = b.end(), b.last
		off = c.end
	}
	c.suspect = suspect(data, seq, c.end, last)
	return c
}

// suspect reports whether a damaged block stands behind the end: in the rest of the
// page, which is written as zeros, or as the next page's first block, where the bytes of
// an earlier use of the file may stand too.
func suspect(data []byte, seq uint32, end int64, last Position) bool {
	page := min(roundUp(end, pageBytes), int64(len(data)))
	for _, c := range data[min(end, page):page] {
		if c != 0 {
			return true
		}
	}
	h := data[page:]
	if _, ok := parseHeader(data, page); ok || len(h) < headerBytes {
		return false
	}
	le := binary.LittleEndian
	magic, number, follows := le.Uint16(h[4:]) == blockMagic, le.Uint32(h[8:]) == seq, Position(le.Uint64(h[16:])) == last
	return magic && number || magic && follows || number && follows
}

// checkSpan refuses positions that a header cannot express.
func checkSpan(prev, last Position) error {
	if last-prev > 1<<32-1 {
		return fmt.Errorf("block covers %d positions: want at most %d", last-prev, uint32(1<<32-1))
	}
	return nil
}
