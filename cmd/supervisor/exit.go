package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

// Exit is how a process ended.
type Exit struct {
	Code    int      `json:"code"`              // -1 when a signal ended it, or it could not be started
	Signal  string   `json:"signal,omitempty"`  // as SIGKILL
	Why     string   `json:"why,omitempty"`     // why the supervisor ended it
	Message string   `json:"message,omitempty"` // its last words
	Log     string   `json:"log,omitempty"`     // its log file, where it failed without last words
	Time    msg.Time `json:"time"`
	RanS    float64  `json:"ran_s"`
	// OutOfMemory says that SIGKILL came while the kernel killed for want of memory.
	OutOfMemory bool `json:"out_of_memory,omitempty"`
}

func exitOf(state *os.ProcessState, words []string) Exit {
	e := Exit{Code: state.ExitCode(), Message: lastWords(words), Time: msg.Time{Time: time.Now()}}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = unix.SignalName(ws.Signal())
	}
	return e
}

func notStarted(err error) Exit {
	return Exit{Code: -1, Message: err.Error(), Time: msg.Time{Time: time.Now()}}
}

// badConfig says whether the process ended because its configuration is wrong.
func (e Exit) badConfig() bool { return e.Code == worker.ExitConfig && e.Why == "" }

// unexplained says whether it failed by itself without last words.
func (e Exit) unexplained() bool { return e.Code > 0 && e.Message == "" }

// reason is why it is held.
func (e Exit) reason() string {
	if e.unexplained() {
		return fmt.Sprintf("exited with code %d: %s", e.Code, e)
	}
	return e.Message
}

// lastWords are the lines by which a program says why it ends. Of a panic, that
// is the first: the rest is its stack, and in the log.
func lastWords(words []string) string {
	for _, line := range words {
		for _, begin := range []string{"panic: ", "fatal error: ", "SIGABRT: "} {
			if strings.HasPrefix(line, begin) {
				return line
			}
		}
	}
	return strings.Join(words, "\n")
}

// String says in one line how it ended.
func (e Exit) String() string {
	text := worker.CodeText(e.Code)
	switch {
	case e.Why != "":
		text = e.Why
	case e.OutOfMemory:
		text = "killed by SIGKILL: the machine was out of memory, and the kernel killed"
	case e.Signal != "":
		text = "killed by " + e.Signal
	case e.Code < 0:
		text = "not started"
	case e.Code == worker.ExitDone:
		text = "ended without being done"
	}
	if first, rest, more := strings.Cut(e.Message, "\n"); first != "" && e.Why == "" {
		text += ": " + first
		if more {
			text += fmt.Sprintf(" (and %s more)", plural(strings.Count(rest, "\n")+1, "line"))
		}
	}
	if e.unexplained() && e.Why == "" && e.Log != "" {
		text += ", without an error message; see " + e.Log
	}
	return text
}

// word says it in one word; "-" before the first end.
func (e *Exit) word() string {
	switch {
	case e == nil:
		return "-"
	case e.Why != "":
		return "ended"
	case e.Signal != "":
		return e.Signal
	case e.Code < 0:
		return "none"
	case e.Code == worker.ExitDone:
		return "done"
	default:
		return fmt.Sprintf("exit %d", e.Code)
	}
}
