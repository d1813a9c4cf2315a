package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// recording is one run of ffmpeg and its folder under work/: the segments that
// ffmpeg writes, and a journal of the frames in them, which outlives a crash.
//
// The recorder adds frames, and notes when a segment is closed and when ffmpeg has
// ended. The filer turns segments into files, in order.
type recording struct {
	name string
	root *os.Root

	compacting sync.Mutex // one at a time; before mu

	mu          sync.Mutex
	head        head
	frames      []sentFrame           // sent to ffmpeg, and not in a segment that is decided about; ascending
	sent        msg.Seq               // the end of the frames that were sent
	pending     *decision             // made and not yet carried out
	closed      map[int]time.Duration // segments that ffmpeg has closed, and when each begins
	ended       bool                  // ffmpeg has
	why         string                // it left a segment unfinished, for people; empty when it did not
	journal     *journal
	mostJournal int64
	synced      int          // the segments before this one are synced for good
	settled     bool         // all is synced, after ffmpeg's end
	failed      map[int]bool // segments whose sync failed: see journal.doubtful
}

// head is what all frames of a recording have in common, and how far it is filed.
type head struct {
	Number   uint64        `json:"number"` // ascending over all recordings of the worker; 0 is of an older version
	Source   msg.Topic     `json:"source"`
	Epoch    msg.Epoch     `json:"epoch"`
	BootID   string        `json:"boot_id"`
	First    msg.Seq       `json:"first"`
	Segment  time.Duration `json:"segment_ns"` // their length
	Index    int           `json:"index"`      // of the next segment to be decided about
	Sent     msg.Seq       `json:"sent"`       // the end of the frames before those in the journal
	Position *position     `json:"position,omitempty"`
}

// sentFrame is a frame that was sent to ffmpeg.
type sentFrame struct {
	Seq    msg.Seq       `json:"seq"`
	Time   msg.Time      `json:"time"`
	BootNS int64         `json:"boot_ns"`
	Synced bool          `json:"synced"`
	At     time.Duration `json:"at_ns"` // in the video, since the beginning of the recording
}

// decision is what becomes of a segment. Once in the journal it is carried out, by
// a later run if need be.
type decision struct {
	Index  int              `json:"index"`
	ID     sidecar.ID       `json:"id"`
	Before position         `json:"before"`
	After  position         `json:"after"`
	Side   *sidecar.Sidecar `json:"side,omitempty"`   // none: the segment goes to quarantine
	Header []byte           `json:"header,omitempty"` // takes the place of the segment's first bytes
	Bytes  int64            `json:"bytes,omitempty"`  // of the segment, where lastBox is to follow them

	Recovered bool `json:"recovered,omitempty"` // the segment may not be all that it was to be
}

func (d *decision) name() string { return string(d.ID) + mp4 }

const mp4 = ".mp4"

// line is one line of a journal: exactly one of its fields.
type line struct {
	Head     *head      `json:"head,omitempty"`
	Frame    *sentFrame `json:"fed,omitempty"`
	Unsent   *msg.Seq   `json:"unfed,omitempty"` // the last frame did not get to ffmpeg
	Closed   *closing   `json:"closed,omitempty"`
	Decision *decision  `json:"decision,omitempty"`
	Done     *int       `json:"done,omitempty"` // the decision about this segment is carried out
}

// closing is a segment that ffmpeg has closed.
type closing struct {
	Index int           `json:"index"`
	Start time.Duration `json:"start_ns"` // in the recording; negative is not known
}

const recordingSuffix = ".run"

func recordingName(worker string, number uint64) string {
	return fmt.Sprintf("%s_%012d%s", worker, number, recordingSuffix)
}

// recordingNumber is the number of a worker's recording, by its folder's name.
func recordingNumber(worker, name string) (number uint64, ok bool) {
	middle, begins := strings.CutPrefix(name, worker+"_")
	middle, ends := strings.CutSuffix(middle, recordingSuffix)
	if !begins || !ends {
		return 0, false
	}
	number, err := strconv.ParseUint(middle, 10, 64)
	if err != nil { // a name of an older version
		return 0, true
	}
	return number, true
}

// newRecording makes a recording's folder, durable with its journal.
func newRecording(work *os.Root, name string, h head) (_ *recording, err error) {
	if err := work.Mkdir(name, 0o700); err != nil {
		return nil, fmt.Errorf("make recording: %w", err)
	}
	root, err := work.OpenRoot(name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make recording: %w", err), work.Remove(name))
	}
	r := &recording{name: name, root: root, head: h, sent: h.First, closed: map[int]time.Duration{}, journal: &journal{root: root}, mostJournal: mostJournal}
	if err = r.compact(); err == nil {
		err = syncFolder(work)
	}
	if err != nil {
		return nil, errors.Join(err, r.close(), work.RemoveAll(name))
	}
	return r, nil
}

// openRecording takes over what an earlier run left. damage is what could not be
// read of its journal.
func openRecording(work *os.Root, name string) (_ *recording, damage, err error) {
	root, err := work.OpenRoot(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open recording: %w", err)
	}
	r := &recording{name: name, root: root, closed: map[int]time.Duration{}, ended: true, why: "the writer was ended", mostJournal: mostJournal}
	if r.journal, damage, err = openJournal(root, r.apply); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open recording: %w", err), root.Close())
	}
	if r.head.Number == 0 && len(r.frames) > 0 { // of an older version, which did not note it
		r.head.First = r.frames[0].Seq
	}
	return r, damage, nil
}

// apply applies a line of the journal.
func (r *recording) apply(l line) {
	switch {
	case l.Head != nil:
		r.head, r.sent = *l.Head, max(l.Head.First, l.Head.Sent)
	case l.Frame != nil:
		r.frames, r.sent = append(r.frames, *l.Frame), l.Frame.Seq+1
	case l.Unsent != nil && len(r.frames) > 0:
		r.frames, r.sent = r.frames[:len(r.frames)-1], *l.Unsent
	case l.Closed != nil && r.closed != nil:
		r.closed[l.Closed.Index] = l.Closed.Start
	case l.Decision != nil:
		r.settle(l.Decision)
	case l.Done != nil && r.pending != nil && r.pending.Index == *l.Done:
		r.pending = nil
	}
}

// settle applies a decision.
func (r *recording) settle(d *decision) {
	r.pending = d
	r.head.Index, r.head.Position = d.Index+1, &d.After
	r.frames = slices.DeleteFunc(r.frames, func(f sentFrame) bool { return f.Seq < d.After.Next || f.At < r.border(d.Index) })
	delete(r.closed, d.Index)
}

// border is when a segment begins at the earliest, in the recording. Segments
// begin at whole multiples of their length, and no gap between frames of one
// recording is as long as that: see recorder.differs.
func (r *recording) border(index int) time.Duration {
	if r.head.Segment <= 0 {
		return -1
	}
	return time.Duration(index)*r.head.Segment - keyFrameSlack(r.head.Segment)
}

// send notes a frame before it is sent to ffmpeg.
func (r *recording) send(f sentFrame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.journal.add(line{Frame: &f}); err != nil {
		return err
	}
	r.frames, r.sent = append(r.frames, f), f.Seq+1
	return nil
}

// unsend takes back the last frame, which did not get to ffmpeg.
func (r *recording) unsend() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.frames) - 1
	if last < 0 {
		return nil
	}
	seq := r.frames[last].Seq
	r.frames, r.sent = r.frames[:last], seq
	return r.journal.add(line{Unsent: &seq})
}

// segmentClosed notes that ffmpeg has closed a segment.
func (r *recording) segmentClosed(index int, start time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < r.head.Index {
		return nil
	}
	r.closed[index] = start
	return r.journal.add(line{Closed: &closing{index, start}})
}

// end notes that ffmpeg has ended, and why it left a segment unfinished.
func (r *recording) end(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended, r.why = true, why
}

// limit gives up the frames that belong to the recording after this one. A frame
// that did not get to ffmpeg goes to the next; the note that it was taken back
// may be lost.
func (r *recording) limit(epoch msg.Epoch, end msg.Seq) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head.Epoch != epoch || r.sent <= end {
		return
	}
	r.sent = end
	r.frames = slices.DeleteFunc(r.frames, func(f sentFrame) bool { return f.Seq >= end })
}

// decide makes a decision durable.
func (r *recording) decide(d *decision, insist func(func() error) error) error {
	r.mu.Lock()
	err := insist(func() error { return r.journal.add(line{Decision: d}) })
	r.mu.Unlock()
	if err == nil {
		err = r.syncJournal()
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(d)
	return nil
}

// done notes that the pending decision is carried out. The note may be lost: a
// decision can be carried out twice.
func (r *recording) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	index := r.pending.Index
	r.pending = nil
	_ = r.journal.add(line{Done: &index})
}

// syncJournal makes the lines so far durable.
func (r *recording) syncJournal() error {
	for {
		r.mu.Lock()
		f, doubtful := r.journal.file, r.journal.doubtful
		r.mu.Unlock()
		if doubtful || f == nil {
			return r.compact()
		}
		err := f.Sync()
		r.mu.Lock()
		replaced := r.journal.file != f
		if !replaced && err != nil {
			r.journal.doubtful = true
		}
		r.mu.Unlock()
		switch {
		case replaced: // its successor was synced before the last lines
		case err != nil:
			return fmt.Errorf("sync journal: %w", err)
		default:
			return nil
		}
	}
}

// mostJournal is how large a journal gets before it is rewritten.
const mostJournal = 128 << 10

// journalGrown reports whether the journal is to be rewritten.
func (r *recording) journalGrown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.size > r.mostJournal
}

// journalUseless reports whether there is no journal, or none that can be made
// durable.
func (r *recording) journalUseless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.file == nil || r.journal.doubtful
}

// compact rewrites the journal with what still matters: the frames of the segments
// that wait. Frames can be added meanwhile, however slow the disk is.
func (r *recording) compact() error {
	r.compacting.Lock()
	defer r.compacting.Unlock()
	r.mu.Lock()
	err := r.journal.begin(r.lines())
	next := r.journal.next
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		return errors.Join(fmt.Errorf("sync journal: %w", err), r.journal.abandon())
	}
	r.mu.Lock()
	err = r.journal.replace()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return syncFolder(r.root)
}

// lines are the journal in short.
func (r *recording) lines() (list []line) {
	h := r.head
	h.Sent = r.sent
	if len(r.frames) > 0 {
		h.Sent = r.frames[0].Seq
	}
	list = append(list, line{Head: &h})
	if r.pending != nil {
		list = append(list, line{Decision: r.pending})
	}
	for i := range r.frames {
		list = append(list, line{Frame: &r.frames[i]})
	}
	for index, start := range r.closed {
		list = append(list, line{Closed: &closing{index, start}})
	}
	return list
}

// file opens a segment. It fails with fs.ErrNotExist where there is none of that
// number.
func (r *recording) file(index, flag int) (*os.File, error) {
	return r.root.OpenFile(segmentName(index), flag, 0)
}

func segmentName(index int) string { return fmt.Sprintf("%06d%s", index, mp4) }

// segmentIndex is the number of a segment.
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

// left lists the segments that nothing is decided about, in order.
func (r *recording) left() (indices []int, err error) {
	entries, err := fs.ReadDir(r.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list recording: %w", err)
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

// drop removes a segment that has no picture.
func (r *recording) drop(index int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.head.Index = index + 1
	delete(r.closed, index)
	if err := r.root.Remove(segmentName(index)); err != nil {
		return fmt.Errorf("remove segment without a picture: %w", err)
	}
	return nil
}

// match finds the frames that a segment shows, by their times in the recording,
// where start is that of its first picture. Pictures come out in the order of the
// frames, but a damaged one of a camera's may be left out. strange is how many
// pictures are of no frame that is known.
func match(frames []sentFrame, shown []time.Duration, start time.Duration) (in []sentFrame, strange uint64) {
	next := 0
	for _, t := range shown {
		at := start + t
		for next < len(frames) && frames[next].At < at-timeGrain {
			next++
		}
		if next == len(frames) || frames[next].At > at+timeGrain {
			strange++
			continue
		}
		in = append(in, frames[next])
		next++
	}
	return in, strange
}

// timeGrain is how exact times are: those in a file have the timescale's grain,
// ffmpeg's list has microseconds.
const timeGrain = 100 * time.Microsecond

// begins is when a segment begins in the recording: as ffmpeg reported, or else with
// the first frame after its border. Negative is unknown.
func (r *recording) begins(index int) time.Duration {
	if start, ok := r.closed[index]; ok && start >= 0 {
		return start
	}
	for _, f := range r.frames {
		if f.At >= r.border(index) {
			return f.At
		}
	}
	return -1
}

// sync makes everything written so far durable: the journal first, so that no
// picture is found without its frame.
func (r *recording) sync() error {
	r.mu.Lock()
	over, ended := r.settled, r.ended
	r.mu.Unlock()
	if over {
		return nil
	}
	err := r.syncWritten()
	if err == nil && ended {
		r.mu.Lock()
		r.settled = true
		r.mu.Unlock()
	}
	return err
}

func (r *recording) syncWritten() error {
	err := r.syncJournal()
	indices, listErr := r.left()
	err = errors.Join(err, listErr)
	for _, i := range indices {
		if i < r.synced {
			continue
		}
		f, openErr := r.file(i, os.O_RDONLY)
		if errors.Is(openErr, fs.ErrNotExist) {
			continue // it is filed meanwhile
		}
		if openErr == nil {
			if openErr = f.Sync(); openErr != nil {
				r.distrust(i)
			}
			openErr = errors.Join(openErr, f.Close())
		}
		err = errors.Join(err, openErr)
		r.synced = i // it grows no more once there is one behind it
	}
	return errors.Join(err, syncFolder(r.root))
}

// distrust notes that a segment's sync failed.
func (r *recording) distrust(index int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = map[int]bool{}
	}
	r.failed[index] = true
}

func (r *recording) doubtful(index int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[index]
}

func syncFolder(root *os.Root) error {
	folder, err := root.Open(".")
	if err == nil {
		err = errors.Join(folder.Sync(), folder.Close())
	}
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

func (r *recording) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.root.Close(), r.journal.close())
}
