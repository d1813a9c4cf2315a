package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/uplink"
)

// Target is the address of the receiver. It holds no secrets.
type Target struct {
	url  *url.URL
	text string
}

// schemes are those that a sink serves.
func schemes() []string {
	return []string{"tcp", "tls", "unix", "ws", "wss", "http", "https", "mqtt", "mqtts", "nats", "zmq+tcp"}
}

var errSecret = errors.New("a password in an address can be read by everybody: want the name in user, and the password in the file that token_file names")

// withTLS has, for each scheme without TLS, the one with it.
func withTLS() map[string]string {
	return map[string]string{"tcp": "tls", "ws": "wss", "http": "https", "mqtt": "mqtts"}
}

// UnmarshalText reads an address.
func (t *Target) UnmarshalText(text []byte) error {
	u, err := url.Parse(string(text))
	switch {
	case err != nil: // the error would repeat what may be a password
		return sink.ErrScheme
	case u.User != nil:
		return errSecret
	case !slices.Contains(schemes(), u.Scheme):
		return fmt.Errorf("%w%s", sink.ErrScheme, nearest.Hint(u.Scheme, schemes()))
	}
	*t = Target{u, string(text)}
	return nil
}

// check wants TLS, but for receivers on this machine, and an address that its scheme can use.
func (t Target) check(c *Config) error {
	host := t.url.Hostname()
	switch t.url.Scheme {
	case "unix":
		if p := t.url.Path + t.url.Opaque; len(p) == 0 || p[0] != '/' || t.url.Host != "" {
			return errors.New("want unix:/PATH, the absolute path of a socket")
		}
		return nil
	case "zmq+tcp":
		if !uplink.IsLocal(host) && c.CurveKeyFile == "" {
			return errors.New("want curve_key_file and curve_receiver_key: without CURVE the receiver may be anybody; plain connections are for this machine alone (127.0.0.1)")
		}
	}
	if encrypted, ok := withTLS()[t.url.Scheme]; ok && host != "" && !uplink.IsLocal(host) {
		return fmt.Errorf("want %s://: without TLS the receiver may be anybody; %s:// is for this machine alone (127.0.0.1)", encrypted, t.url.Scheme)
	}
	if host == "" {
		return fmt.Errorf("want %s://HOST, perhaps with a port", t.url.Scheme)
	}
	return t.checkPort()
}

// checkPort wants a port where the scheme has none of its own. The servers of nats have several,
// which their sink checks.
func (t Target) checkPort() error {
	port := t.url.Port()
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return fmt.Errorf("port %s: want 1 to 65535", port)
	}
	switch t.url.Scheme {
	case "tcp", "tls", "zmq+tcp":
		if port == "" {
			return fmt.Errorf("want %s://HOST:PORT: this scheme has no usual port", t.url.Scheme)
		}
	}
	return nil
}

func (t Target) scheme() string {
	if t.url == nil {
		return ""
	}
	return t.url.Scheme
}

func (t Target) String() string { return t.text }

// MarshalText writes the address as it was given.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.text), nil }
