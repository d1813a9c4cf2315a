package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Meta reads what the ring's present writer says of its slots, without
// registering as a reader.
func (d *Dir) Meta(name Name) ([]byte, error) {
	epoch, err := d.Current(name)
	if err != nil {
		return nil, err
	}
	f, err := openFile(d, fileName(name, epoch, "ctl"), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, offReaders)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, &FormatError{f.Name(), fmt.Sprintf("read header: %v", err)}
	}
	n, v := binary.LittleEndian.Uint32(head[offMetaLen:]), binary.LittleEndian.Uint32(head[offVersion:])
	if string(head[:8]) != magic || v != version || n > MaxMeta {
		return nil, errors.Join(ErrNoRing, &FormatError{f.Name(), "no ring, or one that is being made"})
	}
	return head[offMeta : offMeta+n], nil
}
