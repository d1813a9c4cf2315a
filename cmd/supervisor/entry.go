package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// entry is one line of a log.
type entry struct {
	Time   time.Time
	Level  slog.Level
	Worker string
	Text   string
	Attrs  []attr
	raw    string // the line as it came; "" when it was not JSON
}

type attr struct{ key, value string }

// structured says whether the line was JSON as log/slog writes it.
func (e entry) structured() bool { return e.raw != "" }

// parseEntry reads a line of a worker's. What is not JSON is taken as a
// warning: panics, and what libraries print.
func parseEntry(worker, line string) entry {
	e := entry{Time: time.Now(), Level: slog.LevelWarn, Worker: worker, Text: strings.ToValidUTF8(line, "\uFFFD")}
	if !strings.HasPrefix(line, "{") || !json.Valid([]byte(line)) {
		return e
	}
	parsed := entry{Time: e.Time, Worker: worker, raw: line}
	for key, value := range members(line) {
		parsed.set(key, value)
	}
	if parsed.Text == "" {
		return e
	}
	return parsed
}

func (e *entry) set(key string, value json.RawMessage) {
	text := string(value)
	_ = json.Unmarshal(value, &text) // stays as it is when it is no string
	switch key {
	case slog.TimeKey:
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			e.Time = at
		}
	case slog.LevelKey:
		_ = e.Level.UnmarshalText([]byte(text)) // info, when it is none
	case slog.MessageKey:
		e.Text = text
	case "worker":
	default:
		e.Attrs = append(e.Attrs, attr{key, text})
	}
}

// members walks a JSON object's members in order.
func members(object string) func(yield func(string, json.RawMessage) bool) {
	return func(yield func(string, json.RawMessage) bool) {
		d := json.NewDecoder(strings.NewReader(object))
		if _, err := d.Token(); err != nil {
			return
		}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return
			}
			var value json.RawMessage
			if d.Decode(&value) != nil || !yield(key.(string), value) {
				return
			}
		}
	}
}

// json is the line to be kept.
func (e entry) json() []byte {
	if e.structured() {
		return []byte(e.raw)
	}
	var b bytes.Buffer
	r := slog.NewRecord(e.Time, e.Level, e.Text, 0)
	r.AddAttrs(slog.String("worker", e.Worker))
	for _, a := range e.Attrs {
		r.AddAttrs(slog.String(a.key, a.value))
	}
	_ = slog.NewJSONHandler(&b, nil).Handle(context.Background(), r) // a buffer takes all
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// text is the line for people, without its end.
func (e entry) text(colour bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %-14s %s", paint(colour, dim, e.Time.Local().Format("15:04:05.000")),
		paint(colour, levelColour(e.Level), fmt.Sprintf("%-5s", e.Level)), e.Worker, oneLine(e.Text))
	for _, a := range e.Attrs {
		fmt.Fprintf(&b, " %s%s", paint(colour, dim, a.key+"="), quoted(a.value))
	}
	return b.String()
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return red
	case l >= slog.LevelWarn:
		return yellow
	default:
		return ""
	}
}

// quoted puts quotes around what would not read as one word.
func quoted(value string) string {
	if value == "" || strings.ContainsAny(value, " \"=\n\\") || printable(value) != value {
		return strconv.Quote(value)
	}
	return value
}
