// Package names says what workers, streams and columns may be called.
//
//	"porch-clips" --> Worker --> nil        "../etc" --> Worker --> error
//
// Names become parts of file names, socket paths and topics: the rules keep
// separators, dots and anything a shell or a file system treats specially out.
package names

import (
	"fmt"
	"regexp"
)

var (
	workerRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	streamRE = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
)

// Worker checks the name of a sensor, worker or job.
func Worker(name string) error {
	if !workerRE.MatchString(name) {
		return fmt.Errorf("name %.60q: want 1 to 32 of a-z, 0-9 and -, a letter or digit first", name)
	}
	return nil
}

// Stream checks the name of a stream, or of a column.
func Stream(name string) error {
	if !streamRE.MatchString(name) {
		return fmt.Errorf("name %.60q: want 1 to 32 of a-z, 0-9, - and _, a letter or digit first", name)
	}
	return nil
}
