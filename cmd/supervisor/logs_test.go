package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/pkg/topology"
)

func TestFollow(t *testing.T) {
	var got []entry
	book := newLogbook(func(e entry) { got = append(got, e) })
	words := book.follow("air", strings.NewReader(`{"time":"2026-01-02T03:04:05.5Z","level":"WARN","msg":"trouble","worker":"air","err":"no reading"}
some library speaks
{"level":"INFO","msg":"over","n":3,"list":[1,2]}

panic: it broke
goroutine 1 [running]:
{not json}
unfinished`))
	closeBook(t, book)
	if diff := cmp.Diff([]string{"panic: it broke", "goroutine 1 [running]:", "{not json}", "unfinished"}, words); diff != "" {
		t.Errorf("last words (-want +got):\n%s", diff)
	}
	var lines []string
	for _, e := range got {
		e.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
		lines = append(lines, e.text(false))
	}
	want := []string{
		`03:04:05.000 WARN  air            trouble err="no reading"`,
		`03:04:05.000 WARN  air            some library speaks`,
		`03:04:05.000 INFO  air            over n=3 list=[1,2]`,
		`03:04:05.000 WARN  air            panic: it broke`,
		`03:04:05.000 INFO  air            goroutine 1 [running]:`,
		`03:04:05.000 INFO  air            {not json}`,
		`03:04:05.000 INFO  air            unfinished`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func closeBook(t *testing.T, b *logbook) {
	t.Helper()
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

// Nobody waits for a terminal that does not take what is shown.
func TestStoppedTerminalHoldsNothingUp(t *testing.T) {
	var shown []string
	free := make(chan struct{})
	book := newLogbook(func(e entry) { <-free; shown = append(shown, e.Text) })
	const lines = maxQueue + 100
	for range lines {
		book.take(parseEntry("air", "x"))
	}
	close(free)
	book.flush()
	book.take(parseEntry("air", "last"))
	closeBook(t, book)
	if n := len(shown); n < maxQueue || n >= lines || !slices.Contains(shown, "log lines were dropped") {
		t.Errorf("%d of %d lines were shown; want %d, and that the rest was dropped", n, lines, maxQueue)
	}
}

func TestFollowCutsLongLines(t *testing.T) {
	var got []entry
	book := newLogbook(func(e entry) { got = append(got, e) })
	book.follow("air", strings.NewReader(strings.Repeat("x", 3*maxLine)+"\nnext\n"))
	closeBook(t, book)
	if len(got) != 2 || len(got[0].Text) > maxLine+50 || got[1].Text != "next" {
		t.Errorf("follow of a line of %d bytes gave %d entries; want it cut to %d, and the next line", 3*maxLine, len(got), maxLine)
	}
}

func TestLogsAreBounded(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	book := newLogbook(func(entry) {})
	book.keepIn(func() (*os.Root, error) { return root, nil })
	line := strings.Repeat("x", 10_000)
	for range 400 { // 4 MB
		book.take(parseEntry("air", line))
	}
	book.take(parseEntry("air", "the last"))
	closeBook(t, book)
	total := 0
	for _, name := range []string{"air.log", "air.log.1"} {
		text, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > maxLog {
			t.Errorf("%s has %d bytes; want %d at most", name, len(text), maxLog)
		}
		if name == "air.log" && !bytes.Contains(text, []byte("the last")) {
			t.Error("the newest line is not in the newest file")
		}
		total += len(text)
	}
	if total < maxLog {
		t.Errorf("%d bytes are kept; want %d at least", total, maxLog)
	}
}

func TestLogsThatCannotBeKeptAreShown(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root.Close() // nothing can be opened in it from now on
	var got []string
	book := newLogbook(func(e entry) { got = append(got, e.Text) })
	book.keepIn(func() (*os.Root, error) { return root, nil })
	book.take(parseEntry("air", "one"))
	book.take(parseEntry("air", "two"))
	closeBook(t, book)
	if diff := cmp.Diff([]string{"one", "keep logs", "two"}, got); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

// Whatever a worker writes: an entry is one line of valid JSON when kept, and
// one line that cannot steer a terminal when shown.
func FuzzParseEntry(f *testing.F) {
	f.Add(`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"ready","worker":"air"}`)
	f.Add(`{"msg":"x","level":7,"time":{},"a":{"b":[null]}}`)
	f.Add("panic: \x1b[2J")
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") {
			t.Skip("follow has split it")
		}
		e := parseEntry("air", line)
		if kept := e.json(); !json.Valid(kept) || bytes.Contains(kept, []byte("\n")) {
			t.Errorf("kept %q; want one line of JSON", kept)
		}
		if shown := e.text(false); strings.ContainsAny(shown, "\x1b\x07\r\x00\n") {
			t.Errorf("shown %q; want nothing that steers a terminal", shown)
		}
	})
}

func FuzzNotes(f *testing.F) {
	f.Add("READY=1\nSTATUS=well")
	f.Add("WATCHDOG=1")
	f.Fuzz(func(t *testing.T, text string) {
		p := &process{wake: make(chan struct{}, 1)}
		p.take(text)
		if p.heard.now().ready && !strings.Contains(text, "READY=1") {
			t.Errorf("ready after %q", text)
		}
	})
}

func TestOwnLogIsKeptAndShown(t *testing.T) {
	var got entry
	book := newLogbook(func(e entry) { got = e })
	book.logger(slog.LevelInfo).Warn("ended", "name", "air")
	closeBook(t, book)
	got.Time, got.raw = time.Time{}, ""
	want := entry{Level: slog.LevelWarn, Worker: ownName, Text: "ended", Attrs: []attr{{"name", "air"}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{}, attr{})); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

// Logs that somebody removed, or their whole folder, are begun anew.
func TestRemovedLogsAreBegunAnew(t *testing.T) {
	store := t.TempDir()
	p := newLogPlace(topology.Node{StoreDir: store, CacheDir: t.TempDir()})
	book := newLogbook(func(entry) {})
	t.Cleanup(func() {
		closeBook(t, book)
		if err := errors.Join(p.close(), p.store.Close()); err != nil {
			t.Error(err)
		}
	})
	book.keepIn(p.folder)
	file := filepath.Join(store, logsFolder, "air.log")
	for _, remove := range []string{"", file, filepath.Dir(file)} {
		if err := os.RemoveAll(remove); err != nil {
			t.Fatal(err)
		}
		book.flush()
		p.looked = time.Time{} // a second has passed
		book.take(parseEntry("air", "after "+remove))
		book.flush()
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "after "+remove) {
			t.Errorf("with %q removed the log is %q, %v; want the line that came then", remove, text, err)
		}
	}
}
