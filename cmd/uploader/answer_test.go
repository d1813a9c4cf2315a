package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/uplink"
)

func TestDigestOfAnAnswer(t *testing.T) {
	sum := sha256.Sum256([]byte("file"))
	other := sha256.Sum256([]byte("other"))
	ours, base, another := hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(other[:])
	for _, c := range []struct {
		name, value, text, want string
	}{
		{"Repr-Digest", "sha-512=:AAAA:, sha-256=:" + base + ":", "", ours},
		{"Content-Digest", "SHA-256=:" + base + ":", "", ours},
		{"Digest", "sha-256=" + base, "", ours},
		{"X-Amz-Checksum-Sha256", base, "", ours},
		{"ETag", `"` + strings.ToUpper(ours) + `"`, "", ours},
		{"ETag", `W/"` + ours + `"`, "", ours},
		{"ETag", `"` + another + `"`, "", ""}, // a tag of that length need not be a sum
		{"ETag", `"5f3-abc"`, "", ""},
		{"X-Nothing", "", `{"sha256": "` + ours + `"}`, ours},
		{"X-Nothing", "", `{"sha256": "` + another + `"}`, another},
		{"X-Nothing", "", `{"sha256": 5}`, ""},
		{"Content-Digest", reprDigest("ok"), "ok", ""}, // that of the answer itself
		{"Repr-Digest", reprDigest("file"), "file", ours},
		{"Repr-Digest", "sha-256=:short:", "", ""},
	} {
		a := answer{header: http.Header{}, text: []byte(c.text)}
		a.header.Set(c.name, c.value)
		if got := a.digest(ours); got != c.want {
			t.Errorf("digest of %s: %s, %q = %q; want %q", c.name, c.value, c.text, got, c.want)
		}
	}
}

// What is said of an answer tells what to look at, and repeats no page.
func TestFailureSaysWhatToLookAt(t *testing.T) {
	const page = "<html><head><title>404 Not Found</title></head></html>"
	for _, c := range []struct {
		status      int
		media, text string
		want        string
	}{
		{401, "text/html", page, "the receiver answered 401 Unauthorized (look at token_file: is what is in it known there, and may it write?)"},
		{403, "", "", "the receiver answered 403 Forbidden (look at token_file: is what is in it known there, and may it write?)"},
		{404, "text/html; charset=utf-8", page, "the receiver answered 404 Not Found (look at the address: is that folder or bucket there, and may we write to it?)"},
		{405, "text/plain", "read only", `the receiver answered 405 Method Not Allowed (look at the address: is that folder or bucket there, and may we write to it?): "read only"`},
		{413, "text/html", page, "the receiver answered 413 Request Entity Too Large"},
		{503, "", "later", `the receiver answered 503 Service Unavailable: "later"`},
	} {
		a := answer{status: c.status, header: http.Header{"Content-Type": {c.media}}, text: []byte(c.text)}
		if got := a.failure().Error(); got != c.want {
			t.Errorf("failure() of %d = %q; want %q", c.status, got, c.want)
		}
	}
}

// Whatever a receiver answers, reading it ends, and bounds what is made of it.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "Repr-Digest", "sha-256=:AAAA:", "{}")
	f.Add(429, "Retry-After", "120", "slow down")
	f.Add(302, "Location", "https://x/\x00", "")
	f.Fuzz(func(t *testing.T, status int, name, value, text string) {
		a := answer{status: status, header: http.Header{}, text: []byte(text)}
		a.header.Set(name, value)
		want := strings.Repeat("a", 64)
		if got := a.digest(want); got != "" && len(got) != 64 {
			t.Errorf("digest() = %q; want 64 digits or none", got)
		}
		if tag := a.tag(); len(tag) > uplink.MaxLine {
			t.Errorf("tag of %d bytes", len(tag))
		}
		if fail := failureOf(a.failure()); fail.after < 0 || fail.after > uplink.LongestAfter || len(fail.Error()) > 3*uplink.MaxLine || strings.ContainsAny(fail.Error(), "\n\x1b\x00") {
			t.Errorf("failure %q, after %s; want a short line, and an hour at most", fail, fail.after)
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, text := range []string{"https://h/x", "s3://b/p?endpoint=h&region=r", "tus+https://h/", "http://127.0.0.1", "https://u:p@h", "s3://b?endpoint=https://u:p@h"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var to Target
		if to.UnmarshalText([]byte(text)) != nil {
			return
		}
		if to.url.User != nil || to.url.Scheme != "https" && !uplink.IsLocal(to.url.Hostname()) {
			t.Errorf("%q is taken: want TLS, and no secret", text)
		}
	})
}
