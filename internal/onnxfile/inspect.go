package onnxfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Info is what an ONNX file states about itself.
type Info struct {
	Producer  string
	IR, Opset int64             // versions of the format and of ONNX's own operators
	Metadata  map[string]string // what the exporter noted
	External  []External        // files beside it that hold its weights
	Foreign   []string          // operators that are not ONNX's own, as "TRT EfficientNMS_TRT"
	Bytes     int64             // of the file and of those beside it
}

// External is a file that holds weights of a model.
type External struct {
	Location string // relative to the model's folder
	Bytes    int64  // the size that it must have at least
}

// Limits of what is kept of a file; it comes from elsewhere.
const (
	maxText     = 1 << 20 // bytes of a name or note
	maxListed   = 1000    // files, operators, notes
	maxDepth    = 20      // of graphs within graphs
	headerBytes = 512     // enough to tell a file's kind
)

// Inspect reads what a model file states about itself. It skips the weights, so
// that time and memory depend on the number of operators and not on the size. It
// fails when the file is not ONNX, saying what it is instead; when it is cut
// short; and when weights in other files are missing, cut short, or outside the
// model's own folder.
func Inspect(path string) (*Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := identify(f, st.Size()); err != nil {
		return nil, err
	}
	info := &Info{Metadata: map[string]string{}, Bytes: st.Size()}
	s := &scanner{file: f, buf: bufio.NewReaderSize(f, 16<<10), size: st.Size(), info: info}
	if err := s.model(); err != nil {
		return nil, err
	}
	return info, info.checkExternal(path)
}

// identify refuses files that are something other than ONNX.
func identify(f io.ReaderAt, size int64) error {
	head := make([]byte, headerBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if what := kind(head[:n]); what != "" {
		return fmt.Errorf("not an ONNX file but %s (it has %d bytes)", what, size)
	}
	return nil
}

// kind names what a file is by its first bytes; empty where it may be ONNX.
func kind(head []byte) string {
	text := bytes.ToLower(bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))))
	at := func(i int, magic string) bool { return len(head) > i && bytes.HasPrefix(head[i:], []byte(magic)) }
	switch {
	case len(head) == 0:
		return "an empty file: copy or download it again"
	case bytes.HasPrefix(text, []byte("version https://git-lfs")):
		return "a Git LFS pointer: run git lfs pull"
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")):
		return "an HTML page: the download failed"
	case bytes.HasPrefix(text, []byte("<?xml")), bytes.HasPrefix(text, []byte("<net")):
		return "an XML file, as OpenVINO has: export the model to ONNX"
	case bytes.HasPrefix(text, []byte(`{"`)), bytes.HasPrefix(text, []byte("{\n")):
		return "a JSON text: the download failed"
	case at(0, "PK\x03\x04"):
		return "a zip archive, as PyTorch's .pt files are: unpack it, or export the model to ONNX"
	case at(0, "\x1f\x8b"), at(0, "BZh"), at(0, "\xfd7zXZ"), at(0, "7z\xbc\xaf"):
		return "a compressed archive: unpack it"
	case at(4, "TFL3"):
		return "a TensorFlow Lite model: export the model to ONNX"
	case at(4, "ORTM"):
		return "a model in ONNX Runtime's own format: use the .onnx file it was made of"
	case at(0, "\x80\x02"):
		return "a Python pickle, as PyTorch's old .pt files are: export the model to ONNX"
	case at(0, "\x89HDF"):
		return "an HDF5 file, as Keras has: export the model to ONNX"
	case at(0, "ptrt"), at(0, "ftrt"):
		return "a TensorRT engine: use the .onnx file it was made of"
	case at(0, "7767517"):
		return "an ncnn model: export the model to ONNX"
	case at(0, "GGUF"):
		return "a GGUF file: a language model cannot detect objects"
	case len(head) == headerBytes && len(bytes.Trim(head, "\x00")) == 0:
		return "a file of zeros: copy or download it again"
	case printable(head):
		return fmt.Sprintf("a text that begins %.40q", bytes.TrimSpace(head))
	}
	return ""
}

// printable tells text from Protocol Buffers, whose tags and lengths are control
// characters: a model's first field is its version, 0x08.
func printable(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && len(head) >= utf8.UTFMax || r < ' ' && !strings.ContainsRune("\t\r\n", r) {
			return false
		}
		head = head[n:]
	}
	return true
}

// scanner reads Protocol Buffers' fields without keeping them.
type scanner struct {
	file *os.File
	buf  *bufio.Reader
	at   int64
	size int64
	info *Info
}

var errNotONNX = errors.New("not an ONNX file: it does not follow the format; copy or download it again")

// field is one of a message. Its contents, where it has some, come next.
type field struct {
	number, wire int
	value        int64 // a number, or the length of the contents
}

// message calls each for the fields of a message that ends at end. What each
// leaves of a field's contents is skipped.
func (s *scanner) message(end int64, each func(field) error) error {
	for s.at < end {
		f, err := s.field(end)
		if err != nil {
			return err
		}
		next := s.at
		if f.wire == 2 {
			next += f.value
		}
		if err := each(f); err != nil {
			return err
		}
		if err := s.skip(next - s.at); err != nil {
			return err
		}
	}
	if s.at > end {
		return errNotONNX
	}
	return nil
}

func (s *scanner) field(end int64) (f field, err error) {
	key, err := s.number(end)
	if err != nil {
		return f, err
	}
	f.number, f.wire = int(key>>3), int(key&7)
	switch {
	case f.number < 1 || f.number > 1<<20:
		return f, errNotONNX
	case f.wire == 0 || f.wire == 2:
		f.value, err = s.number(end)
	case f.wire == 1:
		err = s.skip(8)
	case f.wire == 5:
		err = s.skip(4)
	default:
		err = errNotONNX
	}
	if err == nil && f.wire == 2 && (f.value < 0 || f.value > end-s.at) {
		err = s.cutShort(f.value, end)
	}
	return f, err
}

// cutShort says that a field goes on behind the end of what holds it.
func (s *scanner) cutShort(length, end int64) error {
	if end == s.size && length > 0 && length < math.MaxInt64/2 && s.info.IR > 0 {
		return fmt.Errorf("not complete: %d bytes of at least %d; copy or download it again", s.size, s.at+length)
	}
	return errNotONNX
}

func (s *scanner) number(end int64) (int64, error) {
	v, before := uint64(0), s.at
	for shift := 0; shift < 64; shift += 7 {
		if s.at >= end {
			return 0, s.cutShort(1, end)
		}
		b, err := s.buf.ReadByte()
		if err != nil {
			return 0, err
		}
		s.at++
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return int64(v), nil
		}
	}
	s.at = before
	return 0, errNotONNX
}

// skip passes over n bytes, without reading them where they are many.
func (s *scanner) skip(n int64) error {
	if n < 0 || n > s.size-s.at {
		return s.cutShort(n, s.size)
	}
	s.at += n
	if n <= int64(s.buf.Buffered()) {
		_, err := s.buf.Discard(int(n))
		return err
	}
	if _, err := s.file.Seek(s.at, io.SeekStart); err != nil {
		return err
	}
	s.buf.Reset(s.file)
	return nil
}

func (s *scanner) text(f field) (string, error) {
	if f.wire != 2 || f.value > maxText {
		return "", errNotONNX
	}
	b := make([]byte, f.value)
	if _, err := io.ReadFull(s.buf, b); err != nil {
		return "", err
	}
	s.at += f.value
	return string(b), nil
}

// pair reads a message of two texts, fields 1 and 2.
func (s *scanner) pair(f field) (key, value string, err error) {
	err = s.message(s.at+f.value, func(f field) (err error) {
		switch f.number {
		case 1:
			key, err = s.text(f)
		case 2:
			value, err = s.text(f)
		}
		return err
	})
	return key, value, err
}

// model reads a ModelProto; the numbers are those of onnx.proto3.
func (s *scanner) model() error {
	graphs := 0
	err := s.message(s.size, func(f field) (err error) {
		switch {
		case f.number == 1 && f.wire == 0:
			s.info.IR = f.value
		case f.number == 2 && f.wire == 2:
			s.info.Producer, err = s.text(f)
		case f.number == 7 && f.wire == 2:
			graphs++
			err = s.graph(f, 0)
		case f.number == 8 && f.wire == 2:
			err = s.opset(f)
		case f.number == 14 && f.wire == 2 && len(s.info.Metadata) < maxListed:
			var key, value string
			if key, value, err = s.pair(f); err == nil {
				s.info.Metadata[key] = value
			}
		}
		return err
	})
	if err == nil && (graphs == 0 || s.info.IR < 1) {
		err = errNotONNX
	}
	return err
}

func (s *scanner) opset(f field) error {
	domain, version := "", int64(0)
	err := s.message(s.at+f.value, func(f field) (err error) {
		switch {
		case f.number == 1 && f.wire == 2:
			domain, err = s.text(f)
		case f.number == 2 && f.wire == 0:
			version = f.value
		}
		return err
	})
	if err == nil && own(domain) {
		s.info.Opset = version
	}
	return err
}

func own(domain string) bool { return domain == "" || domain == "ai.onnx" }

func (s *scanner) graph(f field, depth int) error {
	if depth > maxDepth {
		return errNotONNX
	}
	return s.message(s.at+f.value, func(f field) error {
		switch {
		case f.number == 1 && f.wire == 2:
			return s.node(f, depth)
		case f.number == 5 && f.wire == 2:
			return s.tensor(f)
		}
		return nil
	})
}

func (s *scanner) node(f field, depth int) error {
	op, domain := "", ""
	err := s.message(s.at+f.value, func(f field) (err error) {
		switch {
		case f.number == 4 && f.wire == 2:
			op, err = s.text(f)
		case f.number == 7 && f.wire == 2:
			domain, err = s.text(f)
		case f.number == 5 && f.wire == 2:
			err = s.attribute(f, depth)
		}
		return err
	})
	// Exporters leave the domain of TensorRT's plugins out.
	if name := strings.TrimSpace(domain + " " + op); err == nil && (!own(domain) || strings.HasSuffix(op, "_TRT")) &&
		len(s.info.Foreign) < maxListed && !slices.Contains(s.info.Foreign, name) {
		s.info.Foreign = append(s.info.Foreign, name)
	}
	return err
}

func (s *scanner) attribute(f field, depth int) error {
	return s.message(s.at+f.value, func(f field) error {
		switch {
		case (f.number == 5 || f.number == 10) && f.wire == 2:
			return s.tensor(f)
		case (f.number == 6 || f.number == 11) && f.wire == 2:
			return s.graph(f, depth+1)
		}
		return nil
	})
}

// tensor notes where a tensor's values are when they are in another file.
func (s *scanner) tensor(f field) error {
	var location string
	var offset, length int64
	outside := false
	err := s.message(s.at+f.value, func(f field) error {
		if f.number == 14 && f.wire == 0 {
			outside = f.value == 1
		}
		if f.number != 13 || f.wire != 2 {
			return nil
		}
		key, value, err := s.pair(f)
		switch key {
		case "location":
			location = value
		case "offset":
			_, _ = fmt.Sscan(value, &offset) // ONNX Runtime refuses what is no number
		case "length":
			_, _ = fmt.Sscan(value, &length)
		}
		return err
	})
	if err != nil || !outside {
		return err
	}
	if offset < 0 || length < 0 || offset > math.MaxInt64-length {
		return errNotONNX
	}
	return s.info.addExternal(location, offset+length)
}

func (i *Info) addExternal(location string, bytes int64) error {
	at := slices.IndexFunc(i.External, func(e External) bool { return e.Location == location })
	switch {
	case at >= 0:
		i.External[at].Bytes = max(i.External[at].Bytes, bytes)
	case len(i.External) >= maxListed:
		return fmt.Errorf("weights in more than %d other files: export into one file", maxListed)
	default:
		i.External = append(i.External, External{location, bytes})
	}
	return nil
}

// checkExternal looks whether the weights' files are there, whole, and in the
// model's own folder: a model from elsewhere must not read the box's other files.
func (i *Info) checkExternal(model string) error {
	for _, e := range i.External {
		size, err := e.check(model)
		if err != nil {
			return fmt.Errorf("weights in another file, %.100q: %w", e.Location, err)
		}
		i.Bytes += size
	}
	return nil
}

func (e External) check(model string) (int64, error) {
	folder := filepath.Dir(model)
	if !filepath.IsLocal(e.Location) {
		return 0, errors.New("it is outside the model's folder, and is not read: export into one file")
	}
	path := filepath.Join(folder, e.Location)
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("it is not in %s: copy it there, under that name, or export into one file", folder)
	}
	if err != nil {
		return 0, err
	}
	inside, err := within(path, model)
	switch {
	case err != nil:
		return 0, err
	case !inside:
		return 0, errors.New("it is a link out of the model's folder, and is not followed: copy the file itself there")
	case !st.Mode().IsRegular():
		return 0, errors.New("not a regular file")
	case st.Size() < e.Bytes:
		return 0, e.tooShort(path, st.Size())
	}
	return st.Size(), nil
}

// tooShort says why a file of weights has fewer bytes than the model reads of it.
func (e External) tooShort(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := identify(f, size); err != nil {
		return err
	}
	return fmt.Errorf("not complete: %d bytes of at least %d; copy or download it again", size, e.Bytes)
}

// within says whether a file really lies in the model's folder, or beside the
// file that the model's name is a link to, as in caches that keep files by hash.
func within(path, model string) (bool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(model))
	if err != nil {
		return false, err
	}
	target, err := filepath.EvalSymlinks(model)
	if err != nil {
		return false, err
	}
	for _, dir := range []string{folder, filepath.Dir(target)} {
		if rel, err := filepath.Rel(dir, real); err == nil && filepath.IsLocal(rel) {
			return true, nil
		}
	}
	return false, nil
}
