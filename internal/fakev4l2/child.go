package fakev4l2

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// The device and its process talk in JSON objects, one a line: a command on
// the child's standard input is answered on its descriptor 3 (not on standard
// output, where a write after the parent's death would kill the child before
// it has unmounted). The first answer comes unasked, when the camera is there.
const (
	childEnv    = "PERCH_FAKEV4L2" // holds the child's orders
	answerFD    = 3
	exitFailure = 1
)

// orders tell the child what to be.
type orders struct {
	Dir    string // where to mount; removed at the end
	Config Config
}

type verb string

const (
	verbSkip     verb = "skip"
	verbCorrupt  verb = "corrupt"
	verbTruncate verb = "truncate"
	verbStall    verb = "stall"
	verbResume   verb = "resume"
	verbUnplug   verb = "unplug"
	verbReplug   verb = "replug"
	verbSetFPS   verb = "fps"
	verbStats    verb = "stats"
	verbControl  verb = "control"
)

// A command has the one value that its verb needs.
type command struct {
	Verb  verb
	Count uint32  `json:",omitempty"`
	FPS   float64 `json:",omitempty"`
	Name  string  `json:",omitempty"`
	ID    uint32  `json:",omitempty"`
}

type answer struct {
	Error string `json:",omitempty"`
	Stats Stats
	Value int32 // of a control
}

// IsChild says whether this process was started to be the camera: a TestMain
// then ends with os.Exit(Main()).
func IsChild() bool { return os.Getenv(childEnv) != "" }

// Main is the camera's process. It returns the exit code when its standard
// input ends, and has then unmounted the device and removed its folder.
func Main() int {
	if err := serve(os.Getenv(childEnv), os.Stdin, os.NewFile(answerFD, "answers")); err != nil {
		fmt.Fprintln(os.Stderr, "fakev4l2:", err)
		return exitFailure
	}
	return 0
}

func serve(env string, commands io.Reader, answers io.Writer) (err error) {
	var o orders
	if err := json.Unmarshal([]byte(env), &o); err != nil {
		return fmt.Errorf("read %s: %w", childEnv, err)
	}
	first, err := newCamera(o.Config)
	if err != nil {
		return fmt.Errorf("make camera: %w", err)
	}
	b, err := mountBay(o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmountLazily(o.Dir), os.Remove(o.Dir)) }()
	if err := b.plug(first, firstName); err != nil {
		return err
	}
	out := json.NewEncoder(answers)
	if err := out.Encode(answer{}); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		if err := out.Encode(b.obey(o.Config, lines.Bytes())); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	return lines.Err()
}

// obey carries out one command.
func (b *bay) obey(cfg Config, line []byte) answer {
	var cmd command
	err := json.Unmarshal(line, &cmd)
	switch {
	case err != nil:
	case cmd.Verb == verbReplug:
		err = b.replug(cfg, cmd.Name)
	case cmd.Verb == verbUnplug:
		err = b.unplug()
	case b.camera == nil:
		err = errors.New("the camera is not plugged in")
	case cmd.Verb == verbStats:
		return answer{Stats: b.camera.statistics()}
	case cmd.Verb == verbControl:
		var a answer
		if a.Value, err = b.camera.value(cmd.ID); err == nil {
			return a
		}
	default:
		err = b.camera.disturb(cmd)
	}
	if err != nil {
		return answer{Error: fmt.Sprintf("%s: %v", cmd.Verb, err)}
	}
	return answer{}
}

func (b *bay) replug(cfg Config, name string) error {
	c, err := newCamera(cfg)
	if err != nil {
		return err
	}
	return b.plug(c, name)
}

func (c *camera) statistics() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// disturb makes the camera misbehave; it holds from the next captured frame on.
func (c *camera) disturb(cmd command) error {
	if cmd.Verb == verbSetFPS {
		c.setFPS(cmd.FPS)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch cmd.Verb {
	case verbSkip:
		c.next.skip += cmd.Count
	case verbCorrupt:
		c.next.corrupt = true
	case verbTruncate:
		c.next.truncated, c.next.keep = true, int(cmd.Count)
	case verbStall:
		c.stalled = true
	case verbResume:
		c.stalled = false
	default:
		return errors.New("unknown command")
	}
	return nil
}
