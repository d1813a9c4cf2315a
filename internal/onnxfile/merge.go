package onnxfile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// Merge is a model with the weights that it keeps in files beside it put into it.
// Inspect checks beforehand that they are whole and where they may be.
func Merge(path string) ([]byte, error) {
	if _, err := Inspect(path); err != nil {
		return nil, err
	}
	model, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := merger{folder: filepath.Dir(path), files: map[string]*os.File{}}
	whole, err := rewrite(model, 7, func(graph []byte) (message, error) { return rewrite(graph, 5, m.tensor) })
	for _, f := range m.files {
		err = errors.Join(err, f.Close())
	}
	return whole, err
}

// rewrite copies a message, with the contents of one field changed by change.
func rewrite(in message, number int, change func([]byte) (message, error)) (message, error) {
	out := make(message, 0, len(in))
	err := each(in, func(n, wire int, whole, contents []byte) error {
		if n != number || wire != 2 {
			out = append(out, whole...)
			return nil
		}
		changed, err := change(contents)
		if err == nil {
			out.bytes(n, changed)
		}
		return err
	})
	return out, err
}

// each calls do for the fields of a message: whole is a field with its tag,
// contents what is in one that has a length, or its number's bytes.
func each(in []byte, do func(number, wire int, whole, contents []byte) error) error {
	for len(in) > 0 {
		key, tag := binary.Uvarint(in)
		if tag <= 0 {
			return errNotONNX
		}
		first := tag // of the contents
		var last int
		switch key & 7 {
		case 0:
			_, n := binary.Uvarint(in[tag:])
			if n <= 0 {
				return errNotONNX
			}
			last = tag + n
		case 1:
			last = tag + 8
		case 5:
			last = tag + 4
		case 2:
			length, n := binary.Uvarint(in[tag:])
			if n <= 0 || length > uint64(len(in)) {
				return errNotONNX
			}
			first, last = tag+n, tag+n+int(length)
		default:
			return errNotONNX
		}
		if last > len(in) {
			return errNotONNX
		}
		if err := do(int(key>>3), int(key&7), in[:last], in[first:last]); err != nil {
			return err
		}
		in = in[last:]
	}
	return nil
}

// merger reads tensors' values out of other files.
type merger struct {
	folder string
	files  map[string]*os.File
}

// tensor puts a tensor's values into it. Fields 13 and 14 say where they were.
func (m *merger) tensor(in []byte) (message, error) {
	var out message
	where, outside := map[string]string{}, false
	err := each(in, func(n, wire int, whole, contents []byte) error {
		switch {
		case n == 13 && wire == 2:
			var pair [3]string
			err := each(contents, func(n, _ int, _, text []byte) error {
				if n == 1 || n == 2 {
					pair[n] = string(text)
				}
				return nil
			})
			where[pair[1]] = pair[2]
			return err
		case n == 14 && wire == 0:
			outside = len(contents) == 1 && contents[0] == 1
		default:
			out = append(out, whole...)
		}
		return nil
	})
	if err != nil || !outside {
		return in, err
	}
	values, err := m.read(where)
	if err != nil {
		return nil, err
	}
	out.bytes(9, values)
	return out, nil
}

func (m *merger) read(where map[string]string) ([]byte, error) {
	name := where["location"]
	if m.files[name] == nil {
		f, err := os.Open(filepath.Join(m.folder, name))
		if err != nil {
			return nil, err
		}
		m.files[name] = f
	}
	st, err := m.files[name].Stat()
	if err != nil {
		return nil, err
	}
	offset, err := strconv.ParseInt(cmp.Or(where["offset"], "0"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("weights in %.100q: offset: %w", name, err)
	}
	length, err := strconv.ParseInt(cmp.Or(where["length"], strconv.FormatInt(st.Size()-offset, 10)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("weights in %.100q: length: %w", name, err)
	}
	if offset < 0 || length < 0 || offset > st.Size() || length > st.Size()-offset {
		return nil, fmt.Errorf("weights in %.100q: bytes %d to %d of %d", name, offset, offset+length, st.Size())
	}
	values := make([]byte, length)
	_, err = io.ReadFull(io.NewSectionReader(m.files[name], offset, length), values)
	return values, err
}
