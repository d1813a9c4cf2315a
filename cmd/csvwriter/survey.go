package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// contents is what a file turns out to hold.
type contents struct {
	count      uint64         // whole rows
	last       *msg.Cursor    // of the last whole row, or of the stream before the file
	start, end sidecar.Moment // the first and the last whole row
	size       int64          // bytes up to its end
	torn       int64          // bytes after it
	damaged    bool           // it is not what was written: the head is another, or there are whole rows after the torn one
}

// tailBytes is how much of a file's end a restart looks at: more than any disk
// has in flight between two syncs at the rates that a box has.
const tailBytes = 16 << 20

// survey reads a whole file, up to its last whole row: after a kill or a power
// cut the end may be half a row, or zeros. Whole rows after such a place are no
// work of a power cut, and not for csvwriter to cut off.
func survey(f *os.File, d *draft) (contents, error) { return surveyFrom(f, d, 0) }

// surveyTail looks at the end only, and so does not count all rows. Where there
// is no whole row at the end it looks at everything.
func surveyTail(f *os.File, d *draft) (contents, error) {
	st, err := f.Stat()
	if err != nil {
		return contents{}, fmt.Errorf("survey: %w", err)
	}
	if from := st.Size() - tailBytes; from > 0 {
		if c, err := surveyFrom(f, d, from); err != nil || c.count > 0 {
			return c, err
		}
	}
	return survey(f, d)
}

func surveyFrom(f *os.File, d *draft, from int64) (contents, error) {
	c := contents{last: d.Before}
	st, err := f.Stat()
	if err != nil {
		return c, fmt.Errorf("survey: %w", err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, st.Size()-from), 256<<10)
	head, err := r.ReadSlice('\n') // or the rest of some row
	if err == nil {
		c.size = from + int64(len(head))
	}
	c.damaged = from == 0 && !errors.Is(err, io.EOF) && string(head) != d.head()
	fields := len(common()) + len(d.Columns)
	for torn := false; err == nil || errors.Is(err, bufio.ErrBufferFull); {
		var line []byte
		line, err = r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
		case err != nil || c.row(line, fields, d.First.BootID) != nil:
			torn = true
		case torn:
			c.damaged = true
		default:
			c.size += int64(len(line))
		}
	}
	c.torn = st.Size() - c.size
	if !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("survey %s: %w", f.Name(), err)
	}
	return c, nil
}

var errTorn = errors.New("not a whole row")

// row reads a line of the file, its newline included.
func (c *contents) row(line []byte, fields int, bootID string) error {
	cells := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(","), fields+1)
	if len(cells) != fields || bytes.IndexByte(line, 0) >= 0 {
		return errTorn
	}
	at, err1 := time.Parse(time.RFC3339Nano, string(cells[0]))
	seq, err2 := strconv.ParseUint(string(cells[1]), 10, 64)
	var epoch msg.Epoch
	err3 := epoch.UnmarshalText(cells[2])
	boot, err4 := strconv.ParseInt(string(cells[3]), 10, 64)
	synced, err5 := strconv.ParseBool(string(cells[4]))
	if errors.Join(err1, err2, err3, err4, err5) != nil {
		return errTorn
	}
	moment := sidecar.Moment{Time: msg.Time{Time: at}, BootNS: boot, BootID: bootID, Synced: synced, Epoch: epoch, Seq: msg.Seq(seq)}
	if c.count++; c.count == 1 {
		c.start = moment
	}
	c.last = &msg.Cursor{Epoch: epoch, Seq: msg.Seq(seq)}
	c.end = moment
	return nil
}
