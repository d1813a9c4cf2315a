package ffmpeg

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Input is what ffmpeg or ffprobe reads.
type Input struct {
	args  []string // options, then -i and the address
	shown string
	hide  []string // for Command.Hide
	file  bool
}

// String names the input for people, without credentials.
func (i Input) String() string { return i.shown }

// With puts options before those that the input has.
func (i Input) With(options ...string) Input {
	i.args = append(options, i.args...)
	return i
}

// File is a file's contents, whatever its name looks like: only the protocol
// "file" may be used, so that a playlist cannot lead elsewhere.
func File(path string) Input {
	return Input{args: []string{"-protocol_whitelist", "file", "-i", "file:" + path}, shown: "file:" + path, file: true}
}

// RTSP is a stream of a network camera (RFC 2326), over TCP: one connection, and
// no picture with holes where datagrams were lost. An answer that takes longer
// than the time given is an error. Address is rtsp:// or rtsps://, and may hold
// a user and a password.
func RTSP(address string, timeout time.Duration) (Input, error) {
	u, err := url.Parse(address)
	if err != nil { // the library's error would show the address
		return Input{}, errors.New("parse RTSP address: not a URL: want rtsp://HOST/PATH, with %40 for an @ in the password")
	}
	if (u.Scheme != "rtsp" && u.Scheme != "rtsps") || u.Hostname() == "" {
		return Input{}, fmt.Errorf("parse RTSP address: scheme %q, host %q: want rtsp://HOST/PATH or rtsps://HOST/PATH", u.Scheme, u.Hostname())
	}
	in := Input{args: []string{"-rtsp_transport", "tcp", "-timeout", strconv.FormatInt(timeout.Microseconds(), 10), "-i", address}}
	in.shown, in.hide = withoutSecrets(address, u)
	return in, nil
}

// withoutSecrets is an address without user, password and query, and what to
// replace in texts that may hold any of them.
func withoutSecrets(address string, u *url.URL) (shown string, hide []string) {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	shown = plain.String()
	hide = []string{address, shown}
	secrets := []string{u.RawQuery}
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, u.User.String(), url.QueryEscape(password), url.PathEscape(password), password)
	}
	for _, s := range secrets {
		if s != "" {
			hide = append(hide, s, "***")
		}
	}
	return shown, hide
}
