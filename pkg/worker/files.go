package worker

import (
	"encoding/json"
	"fmt"
	"path"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Files publishes what becomes of a worker's files, and begins their sidecars.
type Files struct {
	w    *Worker
	out  *msg.FileStream
	n    uint64
	read map[string]*spool.Spool // whose sidecars Recover has read, by folder
}

// FileHistory is the ring of a worker's file events: a sidecar is larger than
// a reading, and files are fewer.
func FileHistory() Ring {
	return Ring{Stream: "files", Kind: msg.KindFile, Slots: 256, SlotBytes: 16 << 10}
}

// NameHistory is the ring of a worker that says only where files are, as Repeat
// does: a message without a sidecar is small.
func NameHistory(slots int) Ring {
	return Ring{Stream: "files", Kind: msg.KindFile, Slots: slots, SlotBytes: 768}
}

// PublishFiles opens the stream of what becomes of the worker's files.
func (w *Worker) PublishFiles() (*Files, error) { return w.publishFiles(FileHistory()) }

// PublishNames opens the stream of a worker that only repeats where files are.
// It keeps that many messages.
func (w *Worker) PublishNames(slots int) (*Files, error) { return w.publishFiles(NameHistory(slots)) }

func (w *Worker) publishFiles(h Ring) (*Files, error) {
	out, err := w.pub.Files(msg.Stream(h.Stream), w.retention(h.Slots, h.SlotBytes))
	return &Files{w: w, out: out, read: map[string]*spool.Spool{}}, err
}

// DetectionHistory is the ring of what a detector saw: a minute and more at 5 Hz,
// with room for 100 objects in each message.
func DetectionHistory() Ring {
	return Ring{Stream: "objects", Kind: msg.KindDetection, Slots: 512, SlotBytes: 16 << 10}
}

// PublishDetections opens the stream of what the worker sees.
func (w *Worker) PublishDetections() (*msg.DetectionStream, error) {
	h := DetectionHistory()
	return w.pub.Detections(msg.Stream(h.Stream), w.retention(h.Slots, h.SlotBytes))
}

// NewID names the worker's next file, whose data begin at that moment.
func (f *Files) NewID(start sidecar.Moment) sidecar.ID {
	f.n++
	return sidecar.NewID(f.w.Name(), start.Time.Time, f.w.Epoch(), f.n)
}

// Describe begins the sidecar of a file: all that the worker knows of it
// before its contents, which the spool measures.
func (f *Files) Describe(id sidecar.ID, ext, media string, source msg.Topic, start, end sidecar.Moment, items uint64) *sidecar.Sidecar {
	n := f.w.Node()
	var device *topology.Device
	if d := f.w.DeviceOf(source); d != (topology.Device{}) {
		device = &d
	}
	return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ext, Media: media,
		Node: n.Name, ResponsibleParty: n.ResponsibleParty, Location: n.Location,
		Worker: f.w.Name(), Program: f.w.Program() + " " + version.String(), Source: source, Device: device, Start: start, End: end, Items: items}
}

// Event is a transition that the worker makes now.
func (f *Files) Event(state, reason string) sidecar.Event {
	now := f.w.Now()
	return sidecar.Event{State: state, Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: f.w.BootID(), Synced: now.Synced,
		By: f.w.Name(), Reason: reason}
}

// Announce says on the bus that a file has reached the last state of its
// history. A message has less room than a sidecar: of many detections and a
// long history it carries the ends.
func (f *Files) Announce(side *sidecar.Sidecar) error {
	text, err := fitting(side, FileHistory().SlotBytes-1024) // the header's own keys take less
	if err != nil {
		return fmt.Errorf("announce %s: %w", side.Name, err)
	}
	_, err = f.out.Publish(f.w.Now(), string(side.ID), side.State(), text)
	return err
}

// Repeat says again that a file is in a state. What there is to know of it is in
// its sidecar.
func (f *Files) Repeat(id sidecar.ID, state spool.State) error {
	_, err := f.out.Publish(f.w.Now(), string(id), string(state), nil)
	return err
}

// fitting is a sidecar in no more than that many bytes.
func fitting(side *sidecar.Sidecar, most int) ([]byte, error) {
	short := *side
	for {
		text, err := json.Marshal(&short)
		if err != nil || len(text) <= most {
			return text, err
		}
		switch {
		case len(short.Detections) > 0:
			half := len(short.Detections) / 2
			short.OmittedObjects += uint64(len(short.Detections) - half)
			short.Detections = short.Detections[:half]
		case len(short.History) > 1:
			short.History = short.History[(len(short.History)+1)/2:]
		default:
			return nil, fmt.Errorf("its sidecar has %d bytes: a message has room for %d", len(text), most)
		}
	}
}

// Tell announces a file for whose sake nothing is to be done again: where that
// fails it is counted and logged, and who looks at the folders finds the file.
func (f *Files) Tell(side *sidecar.Sidecar) {
	if err := f.Announce(side); err != nil {
		f.w.Counter("unannounced_files").Add(1)
		f.w.Log.Error("announce file", "file", side.Name, "err", err)
	}
}

// Recover settles what was left half-way in a spool, and counts and tells of it:
// the first time that it is given a spool that was opened, with a look into each
// sidecar. foreign is how many files there are none of ours, and left alone.
func (f *Files) Recover(s *spool.Spool) (foreign int, err error) {
	r, err := s.Recover(f.recovery(f.isNew(s)))
	f.w.Counter("recovered_files").Add(len(r.Recovered))
	f.w.Counter("damaged_files").Add(len(r.Damaged))
	f.w.Counter("settled_leftovers").Add(r.Unfinished + r.Orphans + r.Finished)
	for _, side := range append(r.Recovered, r.Damaged...) {
		f.w.Log.Warn("file recovered", "file", side.Name, "state", side.State(), "why", side.History[len(side.History)-1].Reason)
		f.Tell(side)
	}
	if len(r.Foreign) > 0 {
		f.w.Log.Debug("left alone: none of ours", "files", r.Foreign)
	}
	if err != nil {
		err = fmt.Errorf("recover spool: %w", err)
	}
	return len(r.Foreign), err
}

// isNew says, once, that a spool has been opened since it was asked for that folder.
func (f *Files) isNew(s *spool.Spool) bool {
	is := f.read[s.Dir()] != s
	f.read[s.Dir()] = s
	return is
}

// recovery is how a spool's recovery speaks in the worker's name.
func (f *Files) recovery(deep bool) spool.Recovery {
	return spool.Recovery{Deep: deep, Alive: f.w.Progress, Event: f.Event, Describe: func(id sidecar.ID, name string) *sidecar.Sidecar {
		n := f.w.Node()
		return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: name, Media: mediaOf(name), Node: n.Name,
			ResponsibleParty: n.ResponsibleParty, Location: n.Location, Worker: id.Worker()}
	}}
}

// mediaOf is the media type of a file of perch's, by its name.
func mediaOf(name string) string {
	switch path.Ext(name) {
	case ".csv":
		return "text/csv"
	case ".jpg":
		return "image/jpeg"
	case ".mp4":
		return "video/mp4"
	case ".jsonl":
		return sidecar.LossesMedia
	}
	return "application/octet-stream"
}

// DeviceOf is the sensor behind a topic as the topology describes it; by
// hand, nothing is known of it.
func (w *Worker) DeviceOf(topic msg.Topic) topology.Device {
	if _, source, _, err := topic.Split(); err == nil {
		if e := w.top.Entry(string(source)); e != nil {
			return e.Device
		}
	}
	return topology.Device{}
}
