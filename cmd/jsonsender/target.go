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

func (t Target) String() string { return t.text }

// MarshalText writes the address as it was given.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// isLoopback says whether a host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// Format is what is sent.
type Format string

// Reduction is how several readings become one.
type Reduction string
