package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/rtspcam"
)

// Scheme is what kind of input there is.
type Scheme string

// The schemes of the key input.
const (
	V4L2 Scheme = "v4l2"
	File Scheme = "file"
	Exec Scheme = "exec"
	RTSP Scheme = "rtsp"
	Sim  Scheme = "sim"
)

const wantAddress = `want "v4l2:PATH", "file:PATH", "exec:COMMAND WORDS", "rtsp://HOST/PATH" or "sim:"`

// Address says where the pictures come from. The zero value is no address.
type Address struct {
	Scheme Scheme
	Rest   string // a path, a command's words, a URL; nothing for sim
}

// UnmarshalText reads the scheme; what follows it is checked by Validate.
func (a *Address) UnmarshalText(text []byte) error {
	scheme, rest, ok := strings.Cut(string(text), ":")
	schemes := []Scheme{V4L2, File, Exec, RTSP, Sim}
	switch Scheme(scheme) {
	case V4L2, File, Exec, Sim:
		if ok {
			*a = Address{Scheme(scheme), rest}
			return nil
		}
	case RTSP, "rtsps":
		if strings.HasPrefix(rest, "//") { // the scheme is the URL's own
			rest = string(text)
		}
		*a = Address{RTSP, rest}
		return nil
	}
	path := strings.HasPrefix(string(text), "/") || strings.HasPrefix(string(text), ".")
	switch near, found := nearest.Word(Scheme(scheme), schemes); {
	case strings.HasPrefix(string(text), "/dev/"):
		return fmt.Errorf(`%s; did you mean "v4l2:%s"?`, wantAddress, text)
	case path:
		return fmt.Errorf(`%s; did you mean "file:%s"?`, wantAddress, text)
	case found:
		return fmt.Errorf(`%s; did you mean "%s:"?`, wantAddress, near)
	}
	return fmt.Errorf("%s", wantAddress)
}

// String is the address for people: without credentials, and of a command only
// its name.
func (a Address) String() string {
	switch a.Scheme {
	case "":
		return ""
	case RTSP:
		address, err := rtspcam.ParseAddress(a.Rest)
		if err != nil {
			return "rtsp:"
		}
		return address.String()
	case Exec:
		program, _, _ := strings.Cut(strings.TrimSpace(a.Rest), " ")
		return "exec:" + program
	}
	return string(a.Scheme) + ":" + a.Rest
}

// rtspTimeout is how long a network camera may take for an answer.
const rtspTimeout = 5 * time.Second
