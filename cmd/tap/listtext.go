package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/perch-edge/perch/pkg/msg"
)

func (s *scene) printJSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, p := range s.Publishers {
		if err := enc.Encode(p); err != nil {
			return fmt.Errorf("print publisher %s: %w", p.Source, err)
		}
	}
	for _, one := range s.Streams {
		if err := enc.Encode(one); err != nil {
			return fmt.Errorf("print stream %s: %w", one.Topic, err)
		}
	}
	return nil
}

func (s *scene) print(out io.Writer) error {
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "PUBLISHER\tPROGRAM\tPID\tSUBSCRIBERS\tSTATE")
	for _, p := range s.Publishers {
		name, program := string(p.Source), orDash(p.Program)
		if p.Frames != "" {
			name, program = name+"."+string(p.Frames), "(frames)"
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\n", name, program, pidText(p.PID), orDash(strings.Join(p.Subscribers, ",")), p.state())
	}
	if len(s.Streams) > 0 {
		fmt.Fprintln(tab) // a line without cells: the next table has its own columns
		fmt.Fprintln(tab, "STREAM\tRATE\tMESSAGES\tWHAT\tREADERS")
	}
	for _, one := range s.Streams {
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\n", one.Topic, one.rate(), one.Messages, one.what(), one.readers())
	}
	return tab.Flush()
}

// state says in words how a publisher is.
func (p *publisher) state() string {
	switch {
	case !p.Live:
		return "gone: its socket is left, and no process holds it"
	case p.Frames != "":
		return "live"
	case p.Program == "":
		return "live, no state heard"
	}
	words := []string{"not ready"}
	if p.Ready {
		words[0] = "ready"
	}
	if p.Status != "" {
		words = append(words, plain(p.Status))
	}
	if p.Trouble != "" {
		words = append(words, "TROUBLE: "+plain(p.Trouble))
	}
	return strings.Join(words, ", ")
}

// what describes a stream's ring.
func (s *stream) what() string {
	var words []string
	if s.Format != "" {
		words = append(words, strings.TrimSuffix(fmt.Sprintf("%dx%d %s %s", s.Width, s.Height, s.Format, s.Colour), " "))
		if s.NominalHz > 0 {
			words = append(words, fmt.Sprintf("meant %g Hz", s.NominalHz))
		}
	}
	switch {
	case s.Slots > 0 && s.Kind == msg.KindFrame:
		words = append(words, fmt.Sprintf("%d slots of %s", s.Slots, bytesText(float64(s.SlotBytes), "")))
	case s.Slots > 0:
		words = append(words, fmt.Sprintf("keeps %d", s.Slots))
	}
	if s.Dropped > 0 {
		words = append(words, fmt.Sprintf("%d dropped", s.Dropped))
	}
	if !s.Live {
		words = append(words, "its publisher is gone")
	}
	return orDash(strings.Join(words, ", "))
}

func (s *stream) readers() string {
	var words []string
	for _, r := range s.Readers {
		at := ""
		if r.LastSeq != nil {
			at = fmt.Sprintf(" at %d", *r.LastSeq)
		}
		words = append(words, fmt.Sprintf("%s (pid %d, pins %d)%s", orDash(plain(r.Name)), r.PID, r.Pins, at))
	}
	return orDash(strings.Join(words, ", "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}

func pidText(pid int) string {
	if pid == 0 {
		return "-"
	}
	return fmt.Sprint(pid)
}

// plain keeps what others wrote from steering the terminal or the table.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
