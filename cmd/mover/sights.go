package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// sight is a frame that a detector looked at, and what it saw there.
type sight struct {
	at      time.Duration // the frame's boot time
	wall    msg.Time
	epoch   msg.Epoch
	seq     msg.Seq
	objects []msg.Object
}

// pair is a detector and a camera that it looks at.
type pair struct{ detector, camera msg.Source }

// track is what a detector said of a camera.
type track struct {
	sights  []sight       // by time, ascending
	objects int           // in all of them
	covered time.Duration // nothing about a frame before it is still to come
}

// sights are what all detectors said, as far back as a file can reach.
type sights map[pair]*track

const (
	// remembered is for how long a detection may matter: the longest segment, the
	// longest post before it, and the longest pre and verdict_timeout after it.
	remembered = 2*time.Hour + 2*longest
	// maxSights and maxObjects bound a track: what it forgets early makes a gap,
	// and a file with a gap is not dropped by the rule.
	maxSights  = 50_000
	maxObjects = 200_000
)

// maxPairs bounds how many cameras detectors can speak of.
const maxPairs = 256

// take adds a detection, and says whether it could. Nothing can have been covered
// that is still to come, whatever the message says.
func (s sights) take(d *msg.Detection, now time.Duration) bool {
	p := pair{d.Source, d.FrameSource}
	t := s[p]
	switch {
	case time.Duration(d.FrameBootNS) > now || t == nil && len(s) == maxPairs:
		return false
	case t == nil:
		t = &track{}
		s[p] = t
	}
	next := sight{time.Duration(d.FrameBootNS), d.FrameTime, d.FrameEpoch, d.FrameSeq, d.Objects}
	at, _ := slices.BinarySearchFunc(t.sights, next.at, byTime)
	if at == len(t.sights) {
		t.sights = append(t.sights, next)
	} else { // a camera whose clock went back
		t.sights = slices.Insert(t.sights, at, next)
	}
	t.objects += len(next.objects)
	t.covered = max(t.covered, min(time.Duration(d.CoveredUntil), now))
	t.forget(t.covered - remembered)
	return true
}

func byTime(s sight, at time.Duration) int { return cmp.Compare(s.at, at) }

// forget drops what is older than that, and the oldest quarter where there are
// too many. It does so in strides, so that little is copied.
func (t *track) forget(before time.Duration) {
	old, _ := slices.BinarySearchFunc(t.sights, before, byTime)
	if stride := len(t.sights)/4 + 1; len(t.sights) > maxSights || t.objects > maxObjects {
		old = max(old, stride)
	} else if old < stride {
		return
	}
	for _, s := range t.sights[:old] {
		t.objects -= len(s.objects)
	}
	t.sights = slices.Clone(t.sights[old:])
}

// between are the sights from one moment to another, both included.
func (t *track) between(from, to time.Duration) []sight {
	first, _ := slices.BinarySearchFunc(t.sights, from, byTime)
	end, _ := slices.BinarySearchFunc(t.sights, to+1, byTime)
	return t.sights[first:max(first, end)]
}

// gap is the longest time from one moment to another in which no frame was
// looked at.
func (t *track) gap(from, to time.Duration) time.Duration {
	longest, last := time.Duration(0), from
	for _, s := range t.between(from, to) {
		longest, last = max(longest, s.at-last), s.at
	}
	return max(longest, to-last)
}

// of lists the detectors that have spoken of a camera.
func (s sights) of(camera msg.Source) (list []msg.Source) {
	for p := range s {
		if p.camera == camera {
			list = append(list, p.detector)
		}
	}
	slices.Sort(list)
	return list
}

// evidence is what is known of a file.
type evidence struct {
	frames  int // that were looked at, before and after it too
	looked  int // of its own, by the detector that looked least
	objects []seen
	record  []sidecar.Detection // the same, for the sidecar
	omitted uint64
	gap     time.Duration // the longest that a detector did not look
}

// stillSlack is how far from a picture a frame may be that says what is in it.
const stillSlack = time.Second

// late says, for people, which detector still has something to say about a
// file; "" is none.
func (s sights) late(f *file, detectors []msg.Source, pre time.Duration) string {
	for _, d := range detectors {
		t := s[pair{d, f.camera}]
		if t == nil {
			return string(d) + " has said nothing"
		}
		if left := f.end + pre - t.covered; left > 0 {
			return string(d) + " is " + tenths(left) + " behind its end"
		}
	}
	return ""
}

// evidence gathers what the detectors know of a file.
func (s sights) evidence(f *file, detectors []msg.Source, pre, post time.Duration) (e evidence) {
	start, end := f.start, f.end
	if start == end {
		start, end = start-stillSlack, end+stillSlack
	}
	for i, d := range detectors {
		t := s[pair{d, f.camera}]
		if t == nil {
			t = &track{}
		}
		e.gap = max(e.gap, t.gap(f.start, f.end))
		if n := len(t.between(start, end)); i == 0 || n < e.looked {
			e.looked = n
		}
		found := t.between(start-post, end+pre)
		e.frames += len(found)
		for _, one := range found {
			e.add(d, f, one)
		}
	}
	return e
}

func (e *evidence) add(d msg.Source, f *file, s sight) {
	for _, o := range s.objects {
		if len(e.objects) < maxObjects {
			e.objects = append(e.objects, newSeen(o, d, s.at-f.start))
		}
		if len(e.record) == sidecar.MaxDetections {
			e.omitted++
			continue
		}
		e.record = append(e.record, sidecar.Detection{Detector: d, FrameEpoch: s.epoch, FrameSeq: s.seq, FrameTime: s.wall,
			FrameBootNS: int64(s.at), Label: o.Label, Score: o.Score, Box: o.Box})
	}
}

func tenths(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }
