package shm

import "encoding/binary"

// Meta reads what the ring's present writer says of its slots, without
// registering as a reader.
func (d *Dir) Meta(name Name) ([]byte, error) {
	f, _, head, err := d.readHead(name, offReaders)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return head[offMeta : offMeta+binary.LittleEndian.Uint32(head[offMetaLen:])], nil
}
