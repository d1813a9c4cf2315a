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
	count uint64         // whole rows
	last  *msg.Cursor    // of the last whole row, or of the stream before the file
	end   sidecar.Moment // the last whole row
	size  int64          // bytes up to its end
	torn  int64          // bytes after it
}

// tailBytes is how much of a file's end a restart looks at: more than any disk
// has in flight between two syncs at the rates that a box has.
const tailBytes = 16 << 20

// survey reads a whole file, up to its last whole row. What follows a row that
// is not whole is not trusted either: after a power cut the end of a file may be
// zeros, or a page older than its neighbours.
func survey(f *os.File, d *draft) (contents, error) { return surveyFrom(f, d, 0) }

// surveyTail looks at the end only, and so does not count all rows.
func surveyTail(f *os.File, d *draft) (contents, error) {
	st, err := f.Stat()
	if err != nil {
		return contents{}, fmt.Errorf("survey: %w", err)
	}
	return surveyFrom(f, d, max(0, st.Size()-tailBytes))
}

func surveyFrom(f *os.File, d *draft, from int64) (contents, error) {
	c := contents{last: d.Before, end: d.First}
	st, err := f.Stat()
	if err != nil {
		return c, fmt.Errorf("survey: %w", err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, st.Size()-from), 256<<10)
	head, err := r.ReadString('\n') // or the rest of some row
	if err == nil && from == 0 && head != d.head() {
		return c, fmt.Errorf("survey %s: its first line is %.80q, want %.80q", f.Name(), head, d.head())
	}
	fields := len(common()) + len(d.Columns)
	if err == nil {
		c.size = from + int64(len(head))
	}
	for err == nil {
		var line []byte
		if line, err = r.ReadSlice('\n'); err != nil {
			break
		}
		if err = c.row(line, fields, d.First.BootID); err == nil {
			c.size += int64(len(line))
		}
	}
	c.torn = st.Size() - c.size
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) && !errors.Is(err, bufio.ErrBufferFull) {
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
	c.count++
	c.last = &msg.Cursor{Epoch: epoch, Seq: msg.Seq(seq)}
	c.end = sidecar.Moment{Time: msg.Time{Time: at}, BootNS: boot, BootID: bootID, Synced: synced, Epoch: epoch, Seq: msg.Seq(seq)}
	return nil
}
