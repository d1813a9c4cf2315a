package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/sink"
	"github.com/perch-edge/perch/internal/nearest"
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

var (
	errSecret = errors.New("a secret does not belong into an address, where all can read it: want no user and no password; see user and token_file")
	errPlain  = errors.New("want the scheme with TLS: without it the receiver may be anybody; plain connections are for this machine alone (127.0.0.1)")
)

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
	case "tcp", "ws", "http", "mqtt":
		if !isLoopback(host) {
			return errPlain
		}
	case "zmq+tcp":
		if !isLoopback(host) && c.CurveKeyFile == "" {
			return errors.New("want curve_key_file and curve_receiver_key: without CURVE the receiver may be anybody; plain connections are for this machine alone (127.0.0.1)")
		}
	}
	if host == "" {
		return fmt.Errorf("want %s://HOST, perhaps with a port", t.url.Scheme)
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

// isLoopback says whether a host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
