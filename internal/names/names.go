// Package names says what workers, streams and columns may be called.
//
//	"porch-clips" --> Worker --> nil        "../etc" --> Worker --> error
//
// Names become parts of file names, socket paths and topics: the rules keep
// separators, dots and anything a shell or a file system treats specially out.
package names

import (
	"fmt"
	"strings"
)

// most is how many bytes a name can have.
const most = 32

// is says whether name is made of a-z, 0-9 and the other bytes, a letter or
// digit first. Names are checked with each message: a regular expression would
// take a tenth of a reader's time.
func is(name, other string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || strings.IndexByte(other, c) < 0) {
			return false
		}
	}
	return 0 < len(name) && len(name) <= most
}

// Worker checks the name of a sensor, worker or job.
func Worker(name string) error {
	if !is(name, "-") {
		return fmt.Errorf("name %.60q: want 1 to 32 of a-z, 0-9 and -, a letter or digit first", name)
	}
	return nil
}

// Stream checks the name of a stream, or of a column.
func Stream(name string) error {
	if !is(name, "-_") {
		return fmt.Errorf("name %.60q: want 1 to 32 of a-z, 0-9, - and _, a letter or digit first", name)
	}
	return nil
}
