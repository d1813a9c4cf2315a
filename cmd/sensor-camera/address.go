package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
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

// UnmarshalText reads the scheme, in capital letters too (RFC 3986, 3.1); what
// follows it is checked by Validate.
func (a *Address) UnmarshalText(text []byte) error {
	scheme, rest, ok := cutScheme(string(text))
	schemes := []Scheme{V4L2, File, Exec, RTSP, Sim}
	switch scheme {
	case V4L2, File, Exec, Sim:
		if ok {
			*a = Address{scheme, rest}
			return nil
		}
	case RTSP, rtsps:
		if strings.HasPrefix(rest, "//") { // the scheme is the URL's own
			rest = string(scheme) + ":" + rest
		} else if own, after, ok := cutScheme(rest); ok && (own == RTSP || own == rtsps) {
			rest = string(own) + ":" + after
		}
		*a = Address{RTSP, rest}
		return nil
	}
	switch near, found := nearest.Word(scheme, schemes); {
	case ok && foreign(scheme):
		return fmt.Errorf("%s; %s", wantAddress, byExec(scheme, rest))
	case deviceIn(string(text)) != "":
		return fmt.Errorf(`%s; did you mean "v4l2:%s"?`, wantAddress, deviceIn(string(text)))
	case isPath(string(text)):
		return fmt.Errorf(`%s; did you mean "file:%s"?`, wantAddress, text)
	case found:
		return fmt.Errorf(`%s; did you mean "%s:"?`, wantAddress, near)
	}
	return fmt.Errorf("%s", wantAddress)
}

func cutScheme(text string) (scheme Scheme, rest string, ok bool) {
	before, rest, ok := strings.Cut(text, ":")
	return Scheme(strings.ToLower(before)), rest, ok
}

const rtsps Scheme = "rtsps"

// foreign reports whether this program can read such an address only through a
// command with ffmpeg.
func foreign(scheme Scheme) bool {
	switch scheme {
	case "http", "https", "hls", "rtmp", "rtmps", "rtmpt", "rtp", "srtp", "udp", "tcp", "srt", "rist", "mms", "mmsh", "mmst", "ftp":
		return true
	}
	return false
}

// shellSigns are not allowed in the words of exec:.
const shellSigns = "\"'`|;&<>$*\\"

// byExec is the setting that reads such an address through ffmpeg. It does not
// repeat the address, which may hold a password.
func byExec(scheme Scheme, rest string) string {
	const options = `-f rawvideo -pix_fmt yuv420p -`
	way := fmt.Sprintf(`input = "exec:ffmpeg -i %s://... %s"`, scheme, options)
	if strings.ContainsAny(rest, shellSigns+" ") {
		way = fmt.Sprintf(`input = "exec:" and command = ["ffmpeg", "-i", "%s://...", "%s"]`, scheme, strings.Join(strings.Fields(options), `", "`))
	}
	return fmt.Sprintf(`for %s: want %s, and the pictures' own size as size = "WIDTHxHEIGHT"`, scheme, way)
}

// deviceIn is the device that a text names which is no address: a path, or a
// number as other programs take it.
func deviceIn(text string) string {
	_, err := strconv.ParseUint(strings.TrimPrefix(text, "video"), 10, 8)
	switch {
	case strings.HasPrefix(text, "/dev/"):
		return text
	case err == nil:
		return "/dev/video" + strings.TrimPrefix(text, "video")
	}
	return ""
}

// isPath reports whether a text that is no address looks like a file.
func isPath(text string) bool {
	known := []string{".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".flv", ".gif", ".jpg", ".jpeg", ".png", ".webp", ".264", ".h264"}
	return strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") || slices.Contains(known, strings.ToLower(filepath.Ext(text)))
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
