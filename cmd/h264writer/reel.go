package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// reel is one run of ffmpeg and its folder under work/: the files that it
// writes, and a journal of what they are made of, which outlives us.
type reel struct {
	name string
	root *os.Root

	mu      sync.Mutex // for all below: the feeder adds to fed, the archive takes from it
	head    reelHead
	fed     []shot    // sent to ffmpeg, and not yet in a segment that is filed
	filings []*filing // decided, and not yet done
	journal *os.File
}

// reelHead is what holds for all frames of a reel.
type reelHead struct {
	Source msg.Topic `json:"source"`
	Epoch  msg.Epoch `json:"epoch"`
	BootID string    `json:"boot_id"`
	Index  int       `json:"index"`            // of the next file of ffmpeg's to be filed
	Expect *msg.Seq  `json:"expect,omitempty"` // the first frame that no sidecar speaks of; none before the first segment
}

// shot is a frame that was sent to ffmpeg.
type shot struct {
	Seq    msg.Seq       `json:"seq"`
	Time   msg.Time      `json:"time"`
	BootNS int64         `json:"boot_ns"`
	Synced bool          `json:"synced"`
	At     time.Duration `json:"at_ns"` // in the video, since the reel's beginning
}

// filing is the decision what a file of ffmpeg's becomes.
type filing struct {
	Index int              `json:"index"`
	ID    sidecar.ID       `json:"id"`
	Next  msg.Seq          `json:"next"`           // the first frame that it does not speak of
	Side  *sidecar.Sidecar `json:"side,omitempty"` // none: it does not play, and goes to quarantine
}

func (f *filing) name() string { return string(f.ID) + mp4 }

const mp4 = ".mp4"

// line is one line of a journal: exactly one of its fields.
type line struct {
	Head   *reelHead `json:"head,omitempty"`
	Fed    *shot     `json:"fed,omitempty"`
	Unfed  *msg.Seq  `json:"unfed,omitempty"`
	Filing *filing   `json:"filing,omitempty"`
}

const (
	journalName = "journal"
	reelSuffix  = ".run"
	maxLine     = 64 << 10
)

// newReel makes a reel's folder.
func newReel(work *os.Root, name string, head reelHead) (_ *reel, err error) {
	if err := work.Mkdir(name, 0o700); err != nil {
		return nil, fmt.Errorf("make reel: %w", err)
	}
	root, err := work.OpenRoot(name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make reel: %w", err), work.Remove(name))
	}
	r := &reel{name: name, root: root, head: head}
	if err := r.compact(); err != nil {
		return nil, errors.Join(err, r.close(), work.RemoveAll(name))
	}
	return r, nil
}

// openReel reads the journal of a reel that an earlier run left. Its last line
// may be torn.
func openReel(work *os.Root, name string) (*reel, error) {
	root, err := work.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open reel: %w", err)
	}
	r := &reel{name: name, root: root}
	text, err := root.Open(journalName)
	if err == nil {
		r.replay(text)
		err = text.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("open reel: %w", err), r.close())
	}
	return r, nil
}

// replay reads a journal up to the first line that is none.
func (r *reel) replay(text io.Reader) {
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			return
		}
		switch {
		case l.Head != nil:
			r.head = *l.Head
		case l.Fed != nil:
			r.fed = append(r.fed, *l.Fed)
		case l.Unfed != nil && len(r.fed) > 0:
			r.fed = r.fed[:len(r.fed)-1]
		case l.Filing != nil:
			r.settle(l.Filing)
		}
	}
}

// settle takes over a decision: its frames are spoken for.
func (r *reel) settle(f *filing) {
	r.filings = append(r.filings, f)
	r.head.Index, r.head.Expect = f.Index+1, &f.Next
	r.fed = slices.DeleteFunc(r.fed, func(s shot) bool { return s.Seq < f.Next })
}

// feed notes a frame before it is sent to ffmpeg.
func (r *reel) feed(s shot) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.note(line{Fed: &s}); err != nil {
		return err
	}
	r.fed = append(r.fed, s)
	return nil
}

// unfeed takes back the last frame, which did not get to ffmpeg.
func (r *reel) unfeed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.fed) - 1
	seq := r.fed[last].Seq
	r.fed = r.fed[:last]
	return r.note(line{Unfed: &seq})
}

func (r *reel) note(l line) error {
	text, err := json.Marshal(l)
	if err == nil {
		_, err = r.journal.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// compact writes the journal anew, with what still matters: it takes as much
// room as the frames of one segment, however long ffmpeg runs.
func (r *reel) compact() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	const next = journalName + ".new"
	f, err := r.root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	old := r.journal
	r.journal = f
	err = r.note(line{Head: &r.head})
	for _, each := range r.filings {
		err = errors.Join(err, r.note(line{Filing: each}))
	}
	for i := range r.fed {
		err = errors.Join(err, r.note(line{Fed: &r.fed[i]}))
	}
	if err == nil {
		err = r.root.Rename(next, journalName)
	}
	if err != nil { // the old one is still true
		r.journal = old
		return errors.Join(err, f.Close())
	}
	if old != nil {
		err = old.Close()
	}
	return err
}

// decide notes what a file becomes; from then on it will.
func (r *reel) decide(f *filing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(f)
	return r.note(line{Filing: f})
}

// file opens one of ffmpeg's files. It fails with fs.ErrNotExist where there is
// none of that number.
func (r *reel) file(index, flag int) (*os.File, error) {
	return r.root.OpenFile(segmentName(index), flag, 0)
}

func segmentName(index int) string { return fmt.Sprintf("%06d%s", index, mp4) }

// segmentIndex is the number of a file of ffmpeg's.
func segmentIndex(name string) (int, bool) {
	var n int
	digits, ok := strings.CutSuffix(name, mp4)
	if !ok || len(digits) < 6 || len(digits) > 9 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// left lists the files of ffmpeg's that nothing is decided about, in order.
func (r *reel) left() (indices []int, err error) {
	entries, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list reel: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if n, ok := segmentIndex(e.Name()); ok && e.Type().IsRegular() && n >= r.head.Index {
			indices = append(indices, n)
		}
	}
	slices.Sort(indices)
	return indices, nil
}

// drop removes a file that has no picture.
func (r *reel) drop(index int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.head.Index = index + 1
	return r.root.Remove(segmentName(index))
}

// match finds the frames that a file shows, by their times. start is that of
// the file within the reel, negative where it is not known: then the first frame
// that is left is taken for the file's first. How many pictures are of no
// frame is returned too. Frames that were passed over are no longer in fed.
func (r *reel) match(shown []time.Duration, start time.Duration) (in []shot, strange uint64) {
	// Times in a file have the timescale's grain, ffmpeg's list microseconds.
	const grain = 100 * time.Microsecond
	r.mu.Lock()
	defer r.mu.Unlock()
	if start < 0 && len(r.fed) > 0 {
		start = r.fed[0].At
	}
	next := 0
	for _, t := range shown {
		at := start + t
		for next < len(r.fed) && r.fed[next].At < at-grain {
			next++
		}
		if next == len(r.fed) || r.fed[next].At > at+grain {
			strange++
			continue
		}
		in = append(in, r.fed[next])
		next++
	}
	r.fed = append([]shot(nil), r.fed[next:]...)
	return in, strange
}

// sync makes what is written so far outlive a power cut.
func (r *reel) sync() error {
	r.mu.Lock()
	err := r.journal.Sync()
	index := r.head.Index
	r.mu.Unlock()
	for _, i := range []int{index, index + 1} {
		f, openErr := r.file(i, os.O_RDONLY)
		if openErr != nil {
			break
		}
		err = errors.Join(err, f.Sync(), f.Close())
	}
	folder, openErr := r.root.Open(".")
	if openErr == nil {
		openErr = errors.Join(folder.Sync(), folder.Close())
	}
	return errors.Join(err, openErr)
}

func (r *reel) close() error {
	err := r.root.Close()
	if r.journal != nil {
		err = errors.Join(err, r.journal.Close())
	}
	return err
}
