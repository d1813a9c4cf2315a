package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/credential"
)

// secretFile writes a secret with that mode.
func secretFile(t *testing.T, dir, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(dir, "secret")
	_ = os.Remove(name) // it may not be there
	if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestSecretsOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for mode, ok := range map[os.FileMode][2]bool{ // as a file, as a credential of systemd's
		0o600: {true, true}, 0o400: {true, true}, 0o440: {false, true}, 0o404: {false, false}, 0o604: {false, false},
		0o620: {false, false}, 0o640: {false, true}, 0o644: {false, false}, 0o602: {false, false},
	} {
		name := secretFile(t, dir, "token\n", mode)
		for i, given := range []string{name, credential.Prefix + "secret"} {
			token, err := credential.Token(given)
			if (err == nil) != ok[i] || err == nil && token != "token" || err != nil && strings.Contains(err.Error(), "token\n") {
				t.Errorf("credential.Token of mode %#o as %.12s… = %q, %v; want it read: %v", mode, given, token, err, ok[i])
			}
		}
	}
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{"abc": "abc", " abc\r\n": "abc", "": "", "\n": "", "two words": "", "a\nb": "", "a\x00b": "", "é": "",
		strings.Repeat("x", credential.MaxBytes+1): ""} {
		got, err := credential.Token(secretFile(t, dir, text, 0o600))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("credential.Token(%.20q) = %q, %v; want %q", text, got, err, want)
		}
		if err != nil && len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("the error %q tells the secret", err)
		}
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]keys{
		"access_key=A\nsecret_key=S/+=\n":               {access: "A", secret: "S/+="},
		"secret_key=S\naccess_key=A\nsession_token=T\n": {access: "A", secret: "S", session: "T"},
		"A\nS/+=\n": {access: "A", secret: "S/+="},
		"access_key = box\r\n\n\tsecret_key =S/+=  \n": {access: "box", secret: "S/+="},
		"access_key =A": {}, "access_key= A": {}, "access_key = A B\nsecret_key = S": {}, "=A\n=B": {},
		"A\n": {}, "A\nB\nC\n": {}, "access_key=A\n": {}, "access_key=A\nsecret_kye=S\n": {}, "": {},
	} {
		got, err := readKeys(secretFile(t, dir, text, 0o600))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(keys{})); diff != "" || (err == nil) != (want != keys{}) {
			t.Errorf("readKeys(%q) = %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"https://h/a":         "https://h/a/x.jpg",
		"https://h":           "https://h/x.jpg",
		"https://h:8443/a/b/": "https://h:8443/a/b/x.jpg",
		"http://[::1]:80/a":   "http://[::1]:80/a/x.jpg",
		"https://h/a%20b/":    "https://h/a%20b/x.jpg",
	} {
		var to Target
		if err := to.UnmarshalText([]byte(text)); err != nil || to.of("x.jpg") != want {
			t.Errorf("%s: %v; want the address %s, got %s", text, err, want, to.of("x.jpg"))
		}
	}
	for text, want := range map[string]Target{
		"s3://b":                           {bucket: "b", region: "us-east-1"},
		"s3://b/":                          {bucket: "b", region: "us-east-1"},
		"s3://b/p/q?region=r":              {bucket: "b", prefix: "p/q/", region: "r"},
		"s3://b/../p/?endpoint=h:9000":     {bucket: "b", prefix: "p/", region: "us-east-1"},
		"s3://b?endpoint=http://127.0.0.1": {bucket: "b", region: "us-east-1"},
	} {
		var to Target
		err := to.UnmarshalText([]byte(text))
		if err != nil || to.bucket != want.bucket || to.prefix != want.prefix || to.region != want.region {
			t.Errorf("%s = %q, %q, %q, %v; want %q, %q, %q", text, to.bucket, to.prefix, to.region, err, want.bucket, want.prefix, want.region)
		}
	}
	for _, text := range []string{"", "h", "https://", "https:///a", "s3://", "s3://b?endpoint=http://h", "s3://b?endpoint=https://u:p@h", "s3://b?endpoint=h/x",
		"tus+s3://b", "http://h/", "http://127.0.0.1.example.org/", "https://h/#x", "https://h/?x", "https://u@h/", "file:///etc"} {
		var to Target
		if err := to.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %+v; want an error", text, to)
		}
	}
}
