package rtspcam

import (
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/bluenviron/gortsplib/v5/pkg/base"
)

// Address is where a camera's stream is: rtsp:// or rtsps://, host and path, and
// perhaps a user and a password.
type Address struct {
	url   *base.URL
	shown string
	hide  *strings.Replacer
}

// ParseAddress parses an address. Its errors do not contain it.
func ParseAddress(text string) (Address, error) {
	plain, err := url.Parse(text)
	if err != nil { // the library's error would show the address
		return Address{}, errors.New("parse RTSP address: not a URL: want rtsp://HOST/PATH, with %40 for an @ in the password")
	}
	switch {
	case plain.Scheme != "rtsp" && plain.Scheme != "rtsps":
		return Address{}, errors.New("parse RTSP address: want it to begin with rtsp://HOST/ or rtsps://HOST/")
	case plain.Hostname() == "":
		return Address{}, errors.New("parse RTSP address: it has no host: want rtsp://HOST/PATH or rtsps://HOST/PATH")
	}
	u, err := base.ParseURL(text)
	if err != nil {
		return Address{}, errors.New("parse RTSP address: want rtsp://HOST/PATH, without a fragment (#)")
	}
	a := Address{url: u}
	a.shown, a.hide = withoutSecrets(text, plain)
	return a, nil
}

// String is the address for people: without user, password and query.
func (a Address) String() string { return a.shown }

// Redact cuts the address's secrets out of a text.
func (a Address) Redact(text string) string { return a.hide.Replace(text) }

func (a Address) hasCredentials() bool { return a.url.User != nil }

func (a Address) secure() bool { return a.url.Scheme == "rtsps" }

// secretPath matches passwords in the path, as cameras without RTSP authentication
// want them.
var secretPath = regexp.MustCompile(`(?i)(pass|pwd|token|secret)[a-z]*=`)

func withoutSecrets(address string, u *url.URL) (shown string, hide *strings.Replacer) {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	secrets := []string{u.RawQuery}
	if secretPath.MatchString(u.Path) {
		secrets = append(secrets, strings.TrimPrefix(u.EscapedPath(), "/"), strings.TrimPrefix(u.Path, "/"))
		plain.Path = "/***"
	}
	shown = plain.String()
	pairs := []string{address, shown}
	if u.User != nil {
		password, _ := u.User.Password()
		_, after, _ := strings.Cut(address, "//")
		as, _, _ := strings.Cut(after, "/") // as it stands there; a slash in it is not a URL
		secrets = append(secrets, as[:max(strings.LastIndexByte(as, '@'), 0)], u.User.String(), url.QueryEscape(password), url.PathEscape(password), password)
	}
	for _, s := range secrets {
		if s != "" {
			pairs = append(pairs, s, "***")
		}
	}
	return shown, strings.NewReplacer(pairs...)
}
