package rule

import (
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// File is what a rule may say of a file.
type File struct {
	ID        string  `expr:"id"`
	Class     string  `expr:"class"`      // losses, readings, pictures, clips or other
	Media     string  `expr:"media"`      // as image/jpeg
	State     string  `expr:"state"`      // born, dropped, ready, sent, rejected or quarantine
	Worker    string  `expr:"worker"`     // that made it
	Source    string  `expr:"source"`     // whose data it holds: the sensor's name
	Bytes     int     `expr:"bytes"`      //
	Items     int     `expr:"items"`      // rows or frames
	Lost      int     `expr:"lost"`       // frames that are in no file, up to its end
	DurationS float64 `expr:"duration_s"` // from its first to its last row or frame
	Sent      bool    `expr:"sent"`       // a receiver has it
	AgeH      float64 `expr:"age_h"`      // hours since its end; 0 where that is not known
	AgeKnown  bool    `expr:"age_known"`  //
	Synced    bool    `expr:"synced"`     // the wall clock was right when it was made
	Hour      int     `expr:"hour"`       // of the day at its start, local time, 0 to 23
}

// Of is what rules may say of the file with that sidecar, in that state, now.
func Of(side *sidecar.Sidecar, state string, now msg.Stamp, bootID string) File {
	f := File{ID: string(side.ID), Class: string(side.Class()), Media: side.Media, State: state, Worker: side.Worker,
		Bytes: int(side.Bytes), Items: int(side.Items), DurationS: Duration(side).Seconds(), Sent: side.Sent(),
		Synced: side.Start.Synced || side.TimeCorrected != nil, Hour: startTime(side).Local().Hour()}
	if _, source, _, err := side.Source.Split(); err == nil {
		f.Source = string(source)
	}
	if side.Frames != nil {
		f.Lost = int(side.Frames.Lost)
	}
	return f.At(EndOf(side), now, bootID)
}

// Duration is from a file's first to its last row or frame.
func Duration(side *sidecar.Sidecar) time.Duration {
	return max(time.Duration(side.End.BootNS-side.Start.BootNS), 0)
}

func startTime(side *sidecar.Sidecar) time.Time {
	if side.TimeCorrected != nil {
		return side.TimeCorrected.Start.Time
	}
	return side.Start.Time.Time
}

// Age is the time since a file's end. It is known by boot time within one boot,
// and between boots where both wall clocks are known to be right.
func Age(side *sidecar.Sidecar, now msg.Stamp, bootID string) (time.Duration, bool) {
	return EndOf(side).Age(now, bootID)
}

// End is when a file's data ended: all that is needed to know its age later on.
type End struct {
	Wall   time.Time
	Right  bool // the wall clock was, or has been corrected
	Boot   time.Duration
	BootID string
}

// EndOf is the file's with that sidecar.
func EndOf(side *sidecar.Sidecar) End {
	e := End{side.End.Time.Time, side.End.Synced, time.Duration(side.End.BootNS), side.End.BootID}
	if side.TimeCorrected != nil {
		e.Wall, e.Right = side.TimeCorrected.End.Time, true
	}
	return e
}

// Age is the time since then; see the function Age.
func (e End) Age(now msg.Stamp, bootID string) (time.Duration, bool) {
	switch {
	case e.BootID == bootID:
		return max(now.Boot-e.Boot, 0), true
	case e.Right && now.Synced && now.Wall.After(e.Wall):
		return now.Wall.Sub(e.Wall), true
	}
	return 0, false
}

// At is what rules may say of the file, which ended then, at another time.
func (f File) At(end End, now msg.Stamp, bootID string) File {
	age, ok := end.Age(now, bootID)
	f.AgeH, f.AgeKnown = age.Hours(), ok
	return f
}
