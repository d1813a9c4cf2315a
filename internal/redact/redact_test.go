package redact

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const token = "s3cr3t/t0k3n+=" // one that is spelt otherwise in an address

func TestSecretsAreFound(t *testing.T) {
	s := Secrets{token, ""}
	for text, want := range map[string]bool{"": false, "harmless": false, "a " + token + " b": true, url.QueryEscape(token): true,
		strings.ToLower(url.QueryEscape(token)): true, "100%": false, `s3cr3t\/t0k3n+=`: true, "s3cr3t&#47;t0k3n&#43;=": true} {
		if got := s.In(text); got != want {
			t.Errorf("In(%q) = %v; want %v", text, got, want)
		}
	}
}

func TestAuthorization(t *testing.T) {
	bearer, basic := &http.Request{Header: http.Header{}}, &http.Request{Header: http.Header{}}
	bearer.Header.Set("Authorization", "Bearer "+token)
	basic.SetBasicAuth("box", "pass:word")
	bare := &http.Request{Header: http.Header{"Authorization": {token}}}
	for name, c := range map[string]struct {
		req  *http.Request
		want Secrets
	}{
		"bearer": {bearer, Secrets{token}},
		"basic":  {basic, Secrets{"Ym94OnBhc3M6d29yZA==", "pass:word"}},
		"bare":   {bare, Secrets{token}},
		"none":   {&http.Request{Header: http.Header{}}, Secrets{""}},
	} {
		if diff := cmp.Diff(c.want, Authorization(c.req)); diff != "" {
			t.Errorf("Authorization(%s) differs (-want +got):\n%s", name, diff)
		}
	}
}
