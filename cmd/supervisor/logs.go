package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLine  = 64 << 10 // bytes of a line that are kept
	maxWords = 20       // lines of what a process said last
)

// logbook takes what all processes write, line by line: it keeps the lines in
// files and shows them. A line that is not JSON, such as those of a panic, is
// made an entry of the worker's.
//
// Nobody waits for it: neither a slow disk nor a terminal that was stopped may
// hold up the supervisor, or by a full pipe the workers. What finds the queue
// full is dropped and counted.
type logbook struct {
	queue   chan func()
	done    chan struct{}
	closing sync.Once
	quit    chan struct{}
	dropped atomic.Uint64 // lines so far

	// Of the writer's goroutine:
	told  uint64                   // of dropped
	place func() (*os.Root, error) // where it keeps them; nil keeps nothing
	dir   *os.Root                 // as place said last
	show  func(entry)
	files map[string]*rotating
	sick  string // why nothing can be kept at the moment
}

const (
	maxQueue = 4096
	// flushPatience bounds how long the end waits for a slow disk or terminal.
	flushPatience = 2 * time.Second
)

func newLogbook(show func(entry)) *logbook {
	b := &logbook{queue: make(chan func(), maxQueue), done: make(chan struct{}), quit: make(chan struct{}),
		show: show, files: map[string]*rotating{}}
	go b.write()
	return b
}

func (b *logbook) write() {
	defer close(b.done)
	for {
		select {
		case f := <-b.queue:
			f()
		case <-b.quit:
			for len(b.queue) > 0 {
				(<-b.queue)()
			}
			b.closeFiles()
			return
		}
	}
}

// keepIn begins to keep entries in a folder, which may be another one each time.
func (b *logbook) keepIn(place func() (*os.Root, error)) { b.queue <- func() { b.place = place } }

func (b *logbook) closeFiles() {
	for _, f := range b.files {
		_ = f.close() // what was to be kept has been written
	}
	clear(b.files)
}

// flush waits until what has been taken is written, but not for long.
func (b *logbook) flush() {
	written := make(chan struct{})
	late := time.After(flushPatience)
	select {
	case b.queue <- func() { close(written) }:
	case <-late:
	}
	select {
	case <-written:
	case <-late:
	}
}

// close writes what has been taken. What comes later is lost.
func (b *logbook) close() error {
	b.closing.Do(func() { close(b.quit) })
	select {
	case <-b.done:
		return nil
	case <-time.After(flushPatience):
		return fmt.Errorf("keep logs: %d lines could not be written in %v", len(b.queue), flushPatience)
	}
}

// logger is for the supervisor's own words.
func (b *logbook) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(ownWords{b}, &slog.HandlerOptions{Level: level})).With("worker", ownName)
}

// ownName is the supervisor's own on the bus and in the logs.
const ownName = "supervisor"

type ownWords struct{ book *logbook }

func (w ownWords) Write(line []byte) (int, error) {
	w.book.take(parseEntry(ownName, strings.TrimSuffix(string(line), "\n")))
	return len(line), nil
}

// complain says what is wrong with the supervisor's own house.
func (b *logbook) complain(what string, err error) {
	b.logger(slog.LevelError).Error(what, "err", err)
}

func (b *logbook) take(e entry) {
	select {
	case b.queue <- func() { b.enter(e) }:
	default:
		b.dropped.Add(1)
	}
}

func (b *logbook) enter(e entry) {
	if n := b.dropped.Load(); n > b.told {
		lines := strconv.FormatUint(n-b.told, 10)
		b.told = n
		b.enter(ownEntry("log lines were dropped", attr{"lines", lines}))
	}
	b.show(e)
	if b.place == nil {
		return
	}
	err := b.keep(e)
	if err == nil {
		b.sick = ""
	} else if sick := err.Error(); sick != b.sick {
		b.sick = sick // said once: the next line would fail as well
		b.show(ownEntry("keep logs", attr{"err", sick}))
	}
}

func ownEntry(text string, a attr) entry {
	return entry{Time: time.Now(), Level: slog.LevelError, Worker: ownName, Text: text, Attrs: []attr{a}}
}

func (b *logbook) keep(e entry) error {
	dir, err := b.place()
	if dir != b.dir {
		b.closeFiles()
		b.dir = dir
	}
	if dir == nil {
		return err
	}
	f := b.files[e.Worker]
	if f == nil {
		f = &rotating{dir: b.dir, name: e.Worker + ".log"}
		b.files[e.Worker] = f
	}
	return errors.Join(err, f.write(append(e.json(), '\n')))
}

// follow takes a worker's lines until the end, and returns its last words: the
// lines that are not JSON since the last that was, the first of them where
// there are many.
func (b *logbook) follow(worker string, from io.Reader) (words []string) {
	lines := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := readLine(lines)
		if line != "" {
			e := parseEntry(worker, line)
			switch {
			case e.structured():
				words = nil
			case len(words) > 0:
				e.Level = slog.LevelInfo // the rest of a stack: its first line was the warning
			}
			if !e.structured() && len(words) < maxWords {
				words = append(words, e.Text)
			}
			b.take(e)
		}
		if err != nil {
			return words
		}
	}
}

// readLine reads a line without its end; what is longer than the reader's
// buffer is cut.
func readLine(r *bufio.Reader) (string, error) {
	part, err := r.ReadSlice('\n')
	line := strings.TrimRight(string(part), "\r\n")
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	cut := 0
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = r.ReadSlice('\n')
		cut += len(part)
	}
	return fmt.Sprintf("%s … (%d bytes more)", strings.ToValidUTF8(line, "\uFFFD"), cut), err
}

// rotating is a log file that is renamed and begun anew at maxLog bytes.
type rotating struct {
	dir  *os.Root
	name string
	file *os.File
	size int64
}

const maxLog = 1 << 20

func (r *rotating) write(line []byte) error {
	if r.file != nil && r.size+int64(len(line)) > maxLog {
		if err := errors.Join(r.close(), r.dir.Rename(r.name, r.name+".1")); err != nil {
			return err
		}
	}
	if r.file != nil {
		if st, err := r.file.Stat(); err == nil && removed(st) {
			_ = r.close() // nobody can read it any more
		}
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	n, err := r.file.Write(line)
	r.size += int64(n)
	return err
}

func (r *rotating) open() error {
	file, err := r.dir.OpenFile(r.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.file, r.size = file, st.Size()
	return nil
}

func (r *rotating) close() error {
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}
