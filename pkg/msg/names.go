package msg

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/names"
	"github.com/perch-edge/perch/pkg/shm"
)

// Kind is what a message is about. There are five.
type Kind string

// The kinds of message.
const (
	KindReading   Kind = "reading"   // values of a sensor, by column
	KindFrame     Kind = "frame"     // a picture, its pixels in shared memory
	KindDetection Kind = "detection" // what a detector saw in one frame
	KindFile      Kind = "file"      // a file reached a state
	KindState     Kind = "state"     // a worker's own counters, once a second
)

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{KindReading, KindFrame, KindDetection, KindFile, KindState} }

func (k Kind) check() error {
	if slices.Contains(Kinds(), k) {
		return nil
	}
	return fmt.Errorf("kind %q: want one of %v", string(k), Kinds())
}

// lossless says whether messages of the kind are kept in a history ring.
func (k Kind) lossless() bool {
	return k == KindReading || k == KindDetection || k == KindFile
}

// Source is the name of the worker that publishes.
type Source string

// Stream names one series of messages of a source.
type Stream string

// Seq numbers the messages of one stream within one epoch, from 0, without gaps.
type Seq uint64

// Epoch names one run of a publisher: 16 hexadecimal digits, greater for later
// runs of the same boot.
type Epoch = shm.Epoch

// Check says whether s can be the name of a worker.
func (s Source) Check() error {
	return names.Worker(string(s))
}

// Check says whether s can be the name of a stream.
func (s Stream) Check() error {
	if err := names.Stream(string(s)); err != nil {
		return fmt.Errorf("stream %w", err)
	}
	return nil
}

// Topic is the first part of a message: "<kind>/<source>/<stream>".
type Topic string

// TopicOf joins the three.
func TopicOf(k Kind, source Source, stream Stream) Topic {
	return Topic(string(k) + "/" + string(source) + "/" + string(stream))
}

// Split takes a topic apart and checks each word.
func (t Topic) Split() (Kind, Source, Stream, error) {
	first, rest, _ := strings.Cut(string(t), "/")
	second, third, both := strings.Cut(rest, "/")
	if !both || len(t) > maxTopic {
		return "", "", "", fmt.Errorf("topic %.80q: want <kind>/<source>/<stream>", string(t))
	}
	kind, source, stream := Kind(first), Source(second), Stream(third)
	for _, err := range []error{kind.check(), source.Check(), stream.Check()} {
		if err != nil {
			return "", "", "", fmt.Errorf("topic %.80q: %w", string(t), err)
		}
	}
	return kind, source, stream, nil
}

// ringName is the ring that holds a stream's frames or history.
func ringName(source Source, stream Stream) shm.Name {
	return shm.Name(string(source) + "." + string(stream))
}

// maxIPCPath is the longest path that a unix socket can have: sun_path has 108
// bytes with its terminating zero (unix(7)).
const maxIPCPath = 107

// Endpoint is the ZeroMQ address of a source's messages, or with a stream
// name, of its frames. It fails when a name is none, or the path no absolute
// one or too long for a unix socket.
func Endpoint(runDir string, source Source, frames Stream) (string, error) {
	base := string(source)
	if frames != "" {
		base += "." + string(frames)
		if err := frames.Check(); err != nil {
			return "", err
		}
	}
	if err := source.Check(); err != nil {
		return "", err
	}
	if !strings.HasPrefix(runDir, "/") {
		return "", fmt.Errorf("run folder %q: want an absolute path", runDir)
	}
	path := filepath.Join(runDir, base+".ipc")
	if len(path) > maxIPCPath {
		return "", fmt.Errorf("endpoint %s has %d bytes, a unix socket takes %d: use a shorter run_dir or name", path, len(path), maxIPCPath)
	}
	return "ipc://" + path, nil
}

// ParseEndpoint tells what an endpoint's path says: the folder, the source,
// and for a frame endpoint the stream. Only ipc:// is served: for a subscriber
// tcp:// would need CURVE keys, which no topology key sets.
func ParseEndpoint(endpoint string) (runDir string, source Source, frames Stream, err error) {
	fail := func(why string) (string, Source, Stream, error) {
		return "", "", "", fmt.Errorf("endpoint %q: %s; want ipc:///run/perch/NAME.ipc, or NAME.STREAM.ipc for frames", endpoint, why)
	}
	if strings.HasPrefix(endpoint, "tcp://") {
		return fail("TCP is refused without CURVE keys")
	}
	path, ok := strings.CutPrefix(endpoint, "ipc://")
	if !ok || !strings.HasPrefix(path, "/") {
		return fail("not an absolute ipc:// path")
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) || filepath.Clean(path) != path {
		return fail("control characters in the path, or . or .. or // or / at its end")
	}
	if len(path) > maxIPCPath {
		return fail(fmt.Sprintf("%d bytes, a unix socket takes %d", len(path), maxIPCPath))
	}
	cut := strings.LastIndexByte(path, '/')
	base, ok := strings.CutSuffix(path[cut+1:], ".ipc")
	if !ok {
		return fail("the name does not end in .ipc")
	}
	name, stream, hasStream := strings.Cut(base, ".")
	if err := Source(name).Check(); err != nil {
		return fail(err.Error())
	}
	if hasStream {
		if err := Stream(stream).Check(); err != nil {
			return fail(err.Error())
		}
	}
	return path[:max(cut, 1)], Source(name), Stream(stream), nil
}
