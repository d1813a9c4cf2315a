package main

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/uplink"
)

// scheme is how a receiver is spoken to.
type scheme string

const (
	schemeHTTP scheme = "http"
	schemeS3   scheme = "s3"
	schemeTus  scheme = "tus"
)

// Target is where files go. It holds no secrets.
type Target struct {
	scheme scheme
	text   string
	url    *url.URL // of the folder, or of the S3 server
	bucket string
	prefix string // of S3 keys, with its slash
	region string
}

var (
	errTarget = errors.New("want https://HOST/FOLDER, s3://BUCKET/PREFIX?endpoint=HOST&region=REGION, or tus+https://HOST/UPLOADS")
	errPlain  = errors.New("want https: without TLS the receiver may be anybody; plain http is for this machine alone (127.0.0.1)")
	errSecret = errors.New("a secret in an address can be read by everybody: want no user, no password and no query, and the secret in the file that token_file names")
)

// UnmarshalText reads an address.
func (t *Target) UnmarshalText(text []byte) error {
	u, err := url.Parse(string(text))
	if err != nil { // the error would repeat what may be a password
		return errTarget
	}
	if u.User != nil || u.Fragment != "" {
		return errSecret
	}
	parsed := Target{text: string(text), url: u}
	switch kind, ok := strings.CutPrefix(u.Scheme, "tus+"); {
	case u.Scheme == "s3":
		err = parsed.s3(u)
	case ok:
		u.Scheme = kind
		parsed.scheme = schemeTus
		err = parsed.web(u)
	default:
		parsed.scheme = schemeHTTP
		err = parsed.web(u)
	}
	if err == nil {
		*t = parsed
	}
	return err
}

func (t *Target) web(u *url.URL) error {
	if u.RawQuery != "" {
		return errSecret
	}
	return checkServer(u)
}

// s3 reads s3://BUCKET/PREFIX?endpoint=…&region=…
func (t *Target) s3(u *url.URL) error {
	t.scheme, t.bucket, t.prefix = schemeS3, u.Host, strings.TrimPrefix(path.Clean("/"+u.Path)+"/", "/")
	if t.prefix == "/" {
		t.prefix = ""
	}
	if t.bucket == "" {
		return errTarget
	}
	keys, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errTarget
	}
	for key := range keys {
		if key != "endpoint" && key != "region" {
			return fmt.Errorf("unknown %q in the address%s", key, nearest.Hint(key, []string{"endpoint", "region"}))
		}
	}
	if t.region = keys.Get("region"); t.region == "" {
		t.region = "us-east-1"
	}
	server := keys.Get("endpoint")
	switch {
	case server == "":
		server = "https://s3.amazonaws.com"
	case !strings.Contains(server, "://"):
		server = "https://" + server
	}
	if t.url, err = url.Parse(server); err != nil || strings.Trim(t.url.Path, "/")+t.url.RawQuery != "" || t.url.User != nil {
		return errors.New("endpoint: want a host, perhaps with a port")
	}
	return checkServer(t.url)
}

// checkServer wants TLS, but for receivers on this machine.
func checkServer(u *url.URL) error {
	switch {
	case u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errTarget
	case u.Scheme == "http" && !uplink.IsLocal(u.Hostname()):
		return errPlain
	}
	return nil
}

func (t Target) String() string { return t.text }

// MarshalText writes the address as it was given.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// of is the address of a file at the receiver.
func (t Target) of(name string) string { return t.url.JoinPath(name).String() }

// isSameServer says whether an address is of the receiver itself.
func (t Target) isSameServer(u *url.URL) bool {
	return u.Scheme == t.url.Scheme && u.Host == t.url.Host && u.User == nil && u.RawQuery == ""
}
