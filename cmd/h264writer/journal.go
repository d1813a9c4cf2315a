package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// journal is an append-only file of JSON lines. A line that a full disk or a crash
// cut short does not count: the next line overwrites it, and a reader stops before
// it.
type journal struct {
	root *os.Root
	file *os.File // nil until there is one
	size int64    // of its whole lines
	// doubtful means that a sync failed. The kernel then treats the pages as written
	// (fsync(2)), so only a new file can be made durable.
	doubtful bool

	next     *os.File // will replace file; gets each new line as well
	nextSize int64
}

const (
	journalName = "journal"
	journalNew  = journalName + ".new"
	maxLine     = 256 << 10
)

// openJournal opens the journal of an earlier run and passes its lines to apply.
// damage is what could not be read; the lines before it count. A folder without a
// journal is treated as one with an empty journal.
func openJournal(root *os.Root, apply func(line)) (j *journal, damage, err error) {
	j = &journal{root: root}
	j.file, err = root.OpenFile(journalName, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, nil
	}
	if err != nil { // an unreadable journal must not stop the recording
		damage = fmt.Errorf("open journal: %w", err)
		return j, damage, root.Rename(journalName, journalName+".damaged")
	}
	j.size, damage = replay(j.file, apply)
	return j, damage, nil
}

// replay passes a journal's lines to apply, up to the first incomplete one, and
// returns their length in bytes. It fails if more is lost than the one line that
// was being written at a crash.
func replay(text io.Reader, apply func(line)) (whole int64, err error) {
	lines := bufio.NewReaderSize(text, maxLine)
	for {
		one, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return whole, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return whole, fmt.Errorf("read journal: a line of more than %d bytes at byte %d", maxLine, whole)
		case err != nil:
			return whole, fmt.Errorf("read journal at byte %d: %w", whole, err)
		}
		var l line
		if err := json.Unmarshal(one, &l); err != nil {
			if _, more := lines.Peek(1); errors.Is(more, io.EOF) {
				return whole, nil
			}
			return whole, fmt.Errorf("read journal: the line at byte %d: %w", whole, err)
		}
		whole += int64(len(one))
		apply(l)
	}
}

// add appends a line. A line that fails is not in the journal.
func (j *journal) add(l line) error {
	text, err := encodeLine(l)
	if err != nil {
		return err
	}
	if j.file == nil {
		return errors.New("write journal: it is not open")
	}
	if _, err := j.file.WriteAt(text, j.size); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.size += int64(len(text))
	if j.next != nil {
		if _, err := j.next.WriteAt(text, j.nextSize); err != nil {
			_ = j.abandon() // replace fails and is tried again; the old one has it all
		}
		j.nextSize += int64(len(text))
	}
	return nil
}

func encodeLine(l line) ([]byte, error) {
	text, err := json.Marshal(l)
	if err == nil && len(text) >= maxLine { // nobody would read it
		err = fmt.Errorf("a line of %d bytes; want at most %d", len(text)+1, maxLine)
	}
	if err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	return append(text, '\n'), nil
}

// begin starts a journal of these lines that will replace the present one. Until
// replace does so, both get what is added.
func (j *journal) begin(lines []line) error {
	var text bytes.Buffer
	for _, l := range lines {
		one, err := encodeLine(l)
		if err != nil {
			return err
		}
		text.Write(one)
	}
	next, err := j.root.OpenFile(journalNew, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		j.next, j.nextSize = next, int64(text.Len())
		_, err = next.WriteAt(text.Bytes(), 0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write journal: %w", err), j.abandon())
	}
	return nil
}

var errAbandoned = errors.New("write journal: the new one was abandoned after a failed write")

// replace puts the new journal, which has been synced, in the place of the old.
func (j *journal) replace() error {
	if j.next == nil {
		return errAbandoned
	}
	if err := j.root.Rename(journalNew, journalName); err != nil {
		return errors.Join(fmt.Errorf("write journal: %w", err), j.abandon())
	}
	old := j.file
	j.file, j.size, j.next, j.doubtful = j.next, j.nextSize, nil, false
	if old == nil {
		return nil
	}
	return old.Close()
}

// abandon gives up the journal that was to replace this one.
func (j *journal) abandon() error {
	next := j.next
	if j.next = nil; next == nil {
		return nil
	}
	return errors.Join(next.Close(), j.root.Remove(journalNew))
}

func (j *journal) close() error {
	err := j.abandon()
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	return err
}
