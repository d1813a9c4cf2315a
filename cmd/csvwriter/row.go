package main

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// A file's format says which columns are there besides the sensor's own. It
// stands in the journal, so that a file of an earlier version is read as such.
const (
	plainFormat = 0 // before there was the column bad
	badFormat   = 1 // with the column bad, the last one
	newFormat   = badFormat
)

// badColumn tells which values of a row are missing or doubtful, and why.
const badColumn = "bad"

// common are the columns that every file begins with.
func common() []string { return []string{"time", "seq", "epoch", "boot_ns", "synced"} }

func headOf(columns []string, format int) string {
	all := append(common(), columns...)
	if format >= badFormat {
		all = append(all, badColumn)
	}
	return strings.Join(all, ",") + "\n"
}

// columnsOf reads a head: the sensor's own columns and the file's format.
func columnsOf(head string) (columns []string, format int, ok bool) {
	rest, ok := strings.CutPrefix(head, strings.Join(common(), ",")+",")
	if !ok || !strings.HasSuffix(rest, "\n") {
		return nil, 0, false
	}
	columns = strings.Split(strings.TrimSuffix(rest, "\n"), ",")
	if last := len(columns) - 1; last > 0 && columns[last] == badColumn {
		columns, format = columns[:last], badFormat
	}
	for _, c := range columns {
		if msg.Stream(c).Check() != nil { // columns are named as streams are
			return nil, 0, false
		}
	}
	return columns, format, true
}

// appendRow appends a reading as one line.
func appendRow(b []byte, r *msg.Reading, format int) []byte {
	b = append(b, r.Time.String()...)
	b = strconv.AppendUint(append(b, ','), uint64(r.Seq), 10)
	b = append(append(b, ','), r.Epoch.String()...)
	b = strconv.AppendInt(append(b, ','), r.BootNS, 10)
	b = strconv.AppendBool(append(b, ','), r.Synced)
	for _, v := range r.Values {
		if b = append(b, ','); !math.IsNaN(v) {
			b = strconv.AppendFloat(b, v, 'f', -1, 64)
		}
	}
	if format >= badFormat {
		b = appendBad(append(b, ','), r)
	}
	return append(b, '\n')
}

// appendBad appends the cell of the column bad, "column=reason; column=reason" in
// the order of the columns, quoted as RFC 4180 has it. A row is one line: what
// would begin another one in a reason becomes a space.
func appendBad(b []byte, r *msg.Reading) []byte {
	if len(r.Bad) == 0 {
		return b
	}
	var cell []byte
	for _, column := range r.Columns {
		reason, ok := r.Bad[column]
		if !ok {
			continue
		}
		if len(cell) > 0 {
			cell = append(cell, "; "...)
		}
		cell = append(append(append(cell, column...), '='), strings.Map(printable, reason)...)
	}
	if !bytes.ContainsAny(cell, "\",") {
		return append(b, cell...)
	}
	b = append(b, '"')
	b = append(b, bytes.ReplaceAll(cell, []byte(`"`), []byte(`""`))...)
	return append(b, '"')
}

func printable(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

var errTorn = errors.New("not a whole row")

// parseRow reads a line with its newline, of a file with so many columns of the
// sensor's. The boot is not in it.
func parseRow(line []byte, columns, format int) (sidecar.Moment, error) {
	fields := len(common()) + columns
	if format >= badFormat {
		fields++
	}
	text, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended || bytes.IndexByte(line, 0) >= 0 {
		return sidecar.Moment{}, errTorn
	}
	var cells [5][]byte
	rest := text
	for i := range cells {
		var more bool
		if cells[i], rest, more = bytes.Cut(rest, []byte(",")); !more {
			return sidecar.Moment{}, errTorn
		}
	}
	values := bytes.SplitN(rest, []byte(","), fields-len(cells))
	if len(values) != fields-len(cells) || !wholeCell(values[len(values)-1], format) {
		return sidecar.Moment{}, errTorn
	}
	at, err1 := time.Parse(time.RFC3339Nano, string(cells[0]))
	seq, err2 := strconv.ParseUint(string(cells[1]), 10, 64)
	var epoch msg.Epoch
	err3 := epoch.UnmarshalText(cells[2])
	boot, err4 := strconv.ParseInt(string(cells[3]), 10, 64)
	synced, err5 := strconv.ParseBool(string(cells[4]))
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
		return sidecar.Moment{}, errTorn
	}
	return sidecar.Moment{Time: msg.Time{Time: at}, BootNS: boot, Synced: synced, Epoch: epoch, Seq: msg.Seq(seq)}, nil
}

// wholeCell says whether a row's last cell is one cell, and not torn.
func wholeCell(cell []byte, format int) bool {
	if format < badFormat || len(cell) == 0 || cell[0] != '"' {
		return bytes.IndexByte(cell, ',') < 0 && bytes.IndexByte(cell, '"') < 0 && bytes.IndexByte(cell, '\r') < 0
	}
	if len(cell) < 2 || cell[len(cell)-1] != '"' {
		return false
	}
	inner := bytes.ReplaceAll(cell[1:len(cell)-1], []byte(`""`), nil)
	return bytes.IndexByte(inner, '"') < 0
}

func cursorOf(m sidecar.Moment) msg.Cursor { return msg.Cursor{Epoch: m.Epoch, Seq: m.Seq} }
