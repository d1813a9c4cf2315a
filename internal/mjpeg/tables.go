package mjpeg

import "encoding/binary"

// tablesBytes is a DHT segment of the four standard tables.
const tablesBytes = 2 + 2 + 2*(1+16+12) + 2*(1+16+162)

// table is a Huffman table as a DHT segment has it (T.81, B.2.4.2): how many
// codes there are of each length, and the values in the order of their codes.
type table struct{ counts, values string }

// standard is a table of T.81, annex K.3: those for luminance and chrominance.
func standard(class, id int) table {
	switch {
	case class == 0 && id == 0: // table K.3
		return table{"\x00\x01\x05\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00", "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"}
	case class == 0: // table K.4
		return table{"\x00\x03\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00", "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"}
	case id == 0: // table K.5
		return table{"\x00\x02\x01\x03\x03\x02\x04\x03\x05\x05\x04\x04\x00\x00\x01\x7d", "" +
			"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0" +
			"\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49" +
			"\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89" +
			"\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5" +
			"\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8" +
			"\xf9\xfa"}
	}
	return table{"\x00\x02\x01\x02\x04\x04\x03\x04\x07\x05\x04\x04\x00\x01\x02\x77", "" + // table K.6
		"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\xa1\xb1\xc1\x09\x23\x33\x52\xf0" +
		"\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48" +
		"\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87" +
		"\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3" +
		"\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8" +
		"\xf9\xfa"}
}

// tableSet is a set of Huffman tables: bit 4*class + id.
type tableSet uint8

func (t tableSet) has(class, id int) bool { return t>>(4*class+id)&1 != 0 }

// Tables returns a DHT segment with the standard Huffman tables that a picture
// lacks, and where to insert it: before the first scan. It is empty if no table is
// missing, if the picture does not use the standard tables (progressive,
// arithmetic), and if its header cannot be read.
func Tables(b []byte) (segment []byte, at int) {
	var defined tableSet
	baseline := false
	for pos := 2; ; {
		code, body, next := segmentAt(b, pos)
		switch code {
		case markSOF0, markSOF1:
			baseline = true
		case markDHT:
			defined |= tablesIn(body)
		case markSOS:
			if !baseline || scanTables(body)&^defined == 0 {
				return nil, 0
			}
			return tablesWithout(defined), pos
		}
		if next == 0 {
			return nil, 0
		}
		pos = next
	}
}

// segmentAt reads the marker at b[pos:] and its segment's data. next is where the
// next one begins, 0 if there is none.
func segmentAt(b []byte, pos int) (code byte, body []byte, next int) {
	at := pos
	for at < len(b) && b[at] == 0xff {
		at++
	}
	if at == pos || at >= len(b) {
		return 0, nil, 0
	}
	if b[at] == markTEM {
		return markTEM, nil, at + 1
	}
	if at+3 > len(b) || b[at] < markSOF0 || markRST0 <= b[at] && b[at] <= markEOI {
		return 0, nil, 0
	}
	end := at + 1 + int(binary.BigEndian.Uint16(b[at+1:]))
	if end < at+3 || end > len(b) {
		return 0, nil, 0
	}
	return b[at], b[at+3 : end], end
}

// tablesIn lists the tables that a DHT segment defines.
func tablesIn(body []byte) (set tableSet) {
	for len(body) >= 17 {
		set |= 1 << (4*(body[0]>>4&1) + body[0]&3)
		n := 17
		for _, count := range body[1:17] {
			n += int(count)
		}
		body = body[min(n, len(body)):]
	}
	return set
}

// scanTables lists the tables that a scan needs (T.81, B.2.3).
func scanTables(body []byte) (set tableSet) {
	if len(body) == 0 {
		return 0
	}
	for i := range int(body[0]) {
		if 2+2*i >= len(body) {
			break
		}
		which := body[2+2*i]
		set |= 1<<(which>>4&3) | 1<<(4+which&3)
	}
	return set
}

// tablesWithout is a DHT segment of the standard tables that are not yet defined.
func tablesWithout(defined tableSet) []byte {
	segment := []byte{0xff, markDHT, 0, 0}
	for id := range 2 {
		for class := range 2 {
			if !defined.has(class, id) {
				t := standard(class, id)
				segment = append(segment, byte(class<<4|id))
				segment = append(append(segment, t.counts...), t.values...)
			}
		}
	}
	binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)-2))
	return segment
}
