package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// story is what is told of a file to a person: lines, some with a label.
type story struct {
	text  strings.Builder
	label string // of the last line
	doubt bool   // some time in it was not known to be right
}

// say adds a line. A label that stands above is not repeated.
func (s *story) say(label, format string, args ...any) {
	shown := label
	if label == s.label {
		shown = ""
	}
	s.label = label
	fmt.Fprintf(&s.text, "%s\n", strings.TrimRight(fmt.Sprintf("%-10s  %s", shown, plain(fmt.Sprintf(format, args...))), " "))
}

// print tells a person what is known of a file.
func (f *finding) print(out io.Writer) error {
	s := &story{}
	s.say("file", "%s", f.ID)
	if f.Sidecar != nil {
		s.describe(f.Sidecar)
		s.life(f.Sidecar)
	}
	s.end(f)
	if s.doubt {
		s.say("?", "the box did not know the time then")
	}
	_, err := io.WriteString(out, s.text.String())
	return err
}

func (s *story) describe(side *sidecar.Sidecar) {
	s.say("what", "%s, %d bytes, sha256 %s", cmp.Or(side.Media, "of an unknown type"), side.Bytes, side.SHA256)
	by := side.Worker
	if side.Program != "" {
		by += " (" + side.Program + ")"
	}
	by += " on " + side.Node
	if side.ResponsibleParty != "" {
		by += ", for " + side.ResponsibleParty
	}
	s.say("made by", "%s", by)
	if where := whereabouts(side.Location); where != "" {
		s.say("where", "%s", where)
	}
	if side.Source != "" {
		s.say("from", "%s%s", side.Source, device(side))
	}
	if side.Start != (sidecar.Moment{}) { // a recovered file has none
		s.data(side)
		s.when(side)
	}
	s.detections(side)
}

// whereabouts is where the box stood, in words.
func whereabouts(l topology.Location) string {
	var words []string
	if l.Site != "" {
		words = append(words, l.Site)
	}
	if p := l.Position; p != nil {
		words = append(words, direction(float64(p.Latitude), "N", "S"), direction(float64(p.Longitude), "E", "W"))
		if h := p.HeightM; h != nil && *h < 0 {
			words = append(words, decimal(-*h)+" m below sea level")
		} else if h != nil {
			words = append(words, decimal(*h)+" m above sea level")
		}
	}
	if l.Timezone != "" {
		words = append(words, "time zone "+l.Timezone)
	}
	return strings.Join(words, ", ")
}

func direction(degrees float64, positive, negative string) string {
	if degrees < 0 {
		return decimal(-degrees) + "° " + negative
	}
	return decimal(degrees) + "° " + positive
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func device(side *sidecar.Sidecar) string {
	if side.Device == nil {
		return ""
	}
	d := side.Device
	words := slices.DeleteFunc([]string{d.Manufacturer, d.Model, d.Serial}, func(w string) bool { return w == "" })
	if len(words) == 0 {
		return ""
	}
	return ", " + strings.Join(words, " ")
}

// data says which rows or frames are in the file.
func (s *story) data(side *sidecar.Sidecar) {
	kind, _, _, _ := side.Source.Split()
	word := map[msg.Kind]string{msg.KindReading: "rows", msg.KindFrame: "frames"}[kind]
	if word == "" {
		word = "items"
	}
	from, to := side.Start, side.End
	if from.Epoch == to.Epoch {
		s.say(word, "%d, from %d to %d of run %s", side.Items, from.Seq, to.Seq, from.Epoch)
	} else {
		s.say(word, "%d, from %d of run %s to %d of run %s", side.Items, from.Seq, from.Epoch, to.Seq, to.Epoch)
	}
	f := side.Frames
	if f == nil {
		return
	}
	for _, span := range f.Earlier {
		s.say(word, "of an earlier run of the source (epoch %s): %d lost (%d-%d)", span.Epoch, span.Last-span.First+1, span.First, span.Last)
	}
	if f.Lost+f.Skipped+f.Repeated == 0 {
		return
	}
	var lost []string
	for _, span := range f.Missing {
		lost = append(lost, fmt.Sprintf("%d-%d", span.First, span.Last))
	}
	missing := ""
	if len(lost) > 0 {
		missing = " (" + strings.Join(lost, ", ") + ")"
	}
	s.say(word, "since the last file: %d lost%s, %d left out on purpose, %d shown twice", f.Lost, missing, f.Skipped, f.Repeated)
}

// when says when the data were made.
func (s *story) when(side *sidecar.Sidecar) {
	length := time.Duration(side.End.BootNS - side.Start.BootNS).Round(time.Millisecond)
	recorded := s.time(side.Start.Time, side.Start.Synced) + " to " + s.time(side.End.Time, side.End.Synced)
	c := side.TimeCorrected
	if c == nil {
		s.say("time", "%s, %s", recorded, length)
		return
	}
	s.say("time", "%s to %s, %s", s.time(c.Start, true), s.time(c.End, true), length)
	s.say("time", "recorded as %s; corrected later, by what the time was %s after boot", recorded,
		time.Duration(c.Anchor.BootNS).Round(time.Second))
}

// time is a wall time in UTC. One that was not known to be right is marked.
func (s *story) time(t msg.Time, synced bool) string {
	text := t.UTC().Format("2006-01-02T15:04:05.000Z")
	if !synced {
		s.doubt = true
		return text + "?"
	}
	return text
}

// sight is all that was seen with one label.
type sight struct {
	n    int
	best sidecar.Detection
}

// detections tells of each label once, by the object that was surest.
func (s *story) detections(side *sidecar.Sidecar) {
	seen := map[string]*sight{}
	var order []*sight
	for _, d := range side.Detections {
		one := seen[d.Label]
		if one == nil {
			one = &sight{best: d}
			seen[d.Label] = one
			order = append(order, one)
		}
		if one.n++; d.Score > one.best.Score {
			one.best = d
		}
	}
	slices.SortStableFunc(order, func(a, b *sight) int { return cmp.Compare(b.best.Score, a.best.Score) })
	const most = 10
	for i, one := range order {
		if i == most {
			s.say("seen", "and %d other labels", len(order)-most)
			break
		}
		b := one.best
		s.say("seen", "%d x %s, surest %.2f by %s at %s in frame %d, box %g,%g to %g,%g", one.n, b.Label, b.Score, b.Detector,
			s.time(b.FrameTime, side.Start.Synced), b.FrameSeq, b.Box[0], b.Box[1], b.Box[2], b.Box[3])
	}
	if side.OmittedObjects > 0 {
		s.say("seen", "and %d more that the sidecar has no room for", side.OmittedObjects)
	}
}

// life tells of each transition, and of the way to the receiver.
func (s *story) life(side *sidecar.Sidecar) {
	for _, e := range side.History {
		s.say("history", "%-25s  %-10s  %s: %s", s.time(e.Time, e.Synced), e.State, e.By, e.Reason)
		if e.Rule != "" {
			s.say("history", "%-27s%s", "", "rule: "+e.Rule)
		}
	}
	if u := side.Upload; u != nil && side.Receipt == nil {
		s.say("upload", "not done, to %s; refused %d times", u.To, u.Attempts)
		if u.URL != "" {
			s.say("upload", "begun at %s", u.URL)
		}
	}
	if r := side.Receipt; r != nil {
		s.say("receipt", "%s  %s has it as %s", s.time(r.Time, r.Synced), r.To, r.Key)
		s.say("receipt", "%s", proof(r))
	}
}

// proof is what a receipt rests on.
func proof(r *sidecar.Receipt) string {
	text := r.Proof.Words()
	if r.Status != 0 {
		text += fmt.Sprintf(", status %d", r.Status)
	}
	if r.Tag != "" {
		text += ", tag " + r.Tag
	}
	return text
}

// end says where the file is now, or why it is not there.
func (s *story) end(f *finding) {
	for _, c := range f.Copies {
		s.say("also", "%s", c.text())
	}
	switch f.Now.Where {
	case "gone":
		last := sidecar.Event{Reason: "it does not say why"}
		if n := len(f.Sidecar.History); n > 0 {
			last = f.Sidecar.History[n-1]
		}
		s.say("now", "gone: %s", last.Reason)
	case "losses":
		s.loss(f.Loss)
	default:
		s.say("now", "%s", f.Now.text())
	}
	if f.Problem != "" {
		s.say("PROBLEM", "%s", f.Problem)
	}
	switch {
	case f.Now.Intact == nil:
	case *f.Now.Intact:
		s.say("verified", "its bytes are those of its sha256")
	default:
		s.say("verified", "DAMAGED: its bytes are not those of its sha256")
	}
}

func (p place) text() string {
	switch {
	case p.Bytes == nil:
		return fmt.Sprintf("%s in the %s: its sidecar only, the file itself is not there (yet, or any more): %s", p.State, p.Where, p.Path)
	case p.State == spool.Work:
		return fmt.Sprintf("being written in the %s, %d bytes so far: %s", p.Where, *p.Bytes, p.Path)
	default:
		return fmt.Sprintf("%s in the %s, %d bytes: %s", p.State, p.Where, *p.Bytes, p.Path)
	}
}

// loss tells of a file that was given up, by its line in a losses file.
func (s *story) loss(l *sidecar.Loss) {
	s.say("what", "%s, %d bytes, sha256 %s", l.Media, l.Bytes, l.SHA256)
	s.say("now", "given up at %s, when it was %s: %s", s.time(l.Time, l.Synced), l.State, l.Reason)
	if l.Rule != "" {
		s.say("now", "rule: %s", l.Rule)
	}
}
