package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/topology"
)

// The exit codes of all programs.
const (
	ExitDone      = 0
	ExitFailed    = 1
	ExitNoDevice  = 69
	ExitTemporary = 75
	ExitConfig    = 78
)

// exitError is an error that says how the process ends.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return CodeText(e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// NoDevice marks an error as a missing device: exit 69.
func NoDevice(err error) error { return &exitError{ExitNoDevice, err} }

// Unavailable marks an error as a service that is not there: exit 69 as well.
func Unavailable(err error) error { return &exitError{ExitNoDevice, err} }

// Said is the end with that code of a Tool that has said all there is to say.
func Said(code int) error { return &exitError{code, nil} }

// Temporary marks an error that time may mend: exit 75.
func Temporary(err error) error { return &exitError{ExitTemporary, err} }

// BadConfig marks an error of the configuration: exit 78.
func BadConfig(err error) error { return &exitError{ExitConfig, err} }

// stopped says whether an error is ctx's own and nothing else. What is joined
// to it, such as rows that could not be written at the end, failed on its own
// account.
func stopped(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(many.Unwrap(), func(e error) bool { return !stopped(e) })
	}
	if inner := errors.Unwrap(err); inner != nil {
		return stopped(inner)
	}
	return errors.Is(err, context.Canceled)
}

// reason is the text of an error without the parts that only say that the worker was told
// to stop.
func reason(err error) string {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err.Error()
	}
	var parts []string
	for _, e := range many.Unwrap() {
		if !stopped(e) {
			parts = append(parts, reason(e))
		}
	}
	if text := err.Error(); len(parts) < 2 && !strings.Contains(text, "\n") { // one of fmt.Errorf, whose words would be missed
		return text
	}
	return strings.Join(parts, "\n")
}

// ExitCode is how a process ends that stopped with this error.
func ExitCode(err error) int {
	marked := (*exitError)(nil)
	problems := topology.Problems(nil)
	held := (*lockfile.HeldError)(nil)
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &marked):
		return marked.code
	case stopped(err):
		return ExitDone
	case errors.As(err, &problems):
		return ExitConfig
	case errors.As(err, &held):
		return ExitTemporary
	default:
		return ExitFailed
	}
}

// said tells whether nothing is to be added to an error.
func said(err error) bool {
	marked := (*exitError)(nil)
	return errors.As(err, &marked) && marked.err == nil
}

// CodeText says what an exit code means.
func CodeText(code int) string {
	switch code {
	case ExitDone:
		return "done"
	case ExitNoDevice:
		return "a device is missing"
	case ExitTemporary:
		return "a temporary failure"
	case ExitConfig:
		return "the configuration is wrong"
	default:
		return fmt.Sprintf("failed with exit code %d", code)
	}
}
