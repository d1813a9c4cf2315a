package gone

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// Find looks for a file's last sidecar in the log in dir, a store's folder
// gone/. It disturbs nothing, and nothing need be running. It fails with
// fs.ErrNotExist where the log knows of no such file.
func Find(dir string, id sidecar.ID) (*sidecar.Sidecar, error) {
	side, err := find(dir, id)
	if err != nil {
		return nil, fmt.Errorf("find %s among the gone files: %w", id, err)
	}
	return side, nil
}

func find(dir string, id sidecar.ID) (*sidecar.Sidecar, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	all, err := list(root)
	if err != nil {
		return nil, err
	}
	for _, s := range slices.Backward(all) {
		side, err := s.find(root, id)
		if err != nil || side != nil {
			return side, err
		}
	}
	return nil, fs.ErrNotExist
}

// find returns nil where the segment has no such file, or has just been removed.
func (s segment) find(root *os.Root, id sidecar.ID) (*sidecar.Sidecar, error) {
	f, err := spool.OpenRegular(root, s.name(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return lastOf(f, id)
}

// lastOf reads whole lines; what is none of ours it skips.
func lastOf(r io.Reader, id sidecar.ID) (last *sidecar.Sidecar, err error) {
	in := bufio.NewReaderSize(r, sidecar.MaxBytes)
	mark := fmt.Appendf(nil, `"id":%q`, string(id))
	for long := false; ; {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return last, nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
			continue
		case err != nil:
			return nil, err
		case !long && bytes.Contains(line, mark):
			if side, err := sidecar.Decode(line); err == nil && side.ID == id {
				last = side
			}
		}
		long = false
	}
}
