package credential

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// put writes a file with a mode, and returns its name.
func put(t *testing.T, dir, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(dir, "secret")
	if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestToken(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string // the token, or a part of the error
		good bool
	}{
		{"s3cret\n", 0o600, "s3cret", true},
		{"s3cret", 0o400, "s3cret", true},
		{"s3cret\n", 0o640, "has mode 0640", false},
		{"s3cret\n", 0o604, "has mode 0604", false},
		{"s3cret two\n", 0o600, "holds no token", false},
		{"\n", 0o600, "holds no token", false},
		{strings.Repeat("s3cret", MaxBytes), 0o600, "more than", false},
	} {
		token, err := Token(put(t, t.TempDir(), c.text, c.mode))
		if c.good && (err != nil || token != c.want) {
			t.Errorf("Token() of %.20q, %o = %q, %v; want %q", c.text, c.mode, token, err, c.want)
		}
		if !c.good && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("Token() of %.20q, %o = %v; want an error with %q, and without the secret", c.text, c.mode, err, c.want)
		}
	}
}

func TestPassword(t *testing.T) {
	if got, err := Password(put(t, t.TempDir(), "two words \r\n", 0o600)); err != nil || got != "two words " {
		t.Errorf("Password() = %q, %v; want the line with its spaces", got, err)
	}
	if got, err := Password(put(t, t.TempDir(), "two\nlines\n", 0o600)); err == nil {
		t.Errorf("Password() of two lines = %q; want an error", got)
	}
}

// What is no regular file must not be waited for.
func TestFileIsAPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := File(name); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("File() of a FIFO = %v; want an error", err)
	}
}

func TestSystemdCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := File("credential:secret"); !errors.Is(err, ErrElsewhere) {
		t.Errorf("File() outside a service = %v; want ErrElsewhere", err)
	}
	dir := t.TempDir()
	put(t, dir, "s3cret", 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got, err := Token("credential:secret"); err != nil || got != "s3cret" {
		t.Errorf("Token() of a credential = %q, %v; want it, though its group may read it", got, err)
	}
	for _, bad := range []string{"credential:", "credential:../secret", "credential:.."} {
		if _, err := File(bad); err == nil || !strings.Contains(err.Error(), "without a folder") {
			t.Errorf("File(%q) = %v; want a name without a folder", bad, err)
		}
	}
}

func TestCheck(t *testing.T) {
	none := put(t, t.TempDir(), "no PEM", 0o600)
	for _, c := range []struct {
		ca, cert, key string
		want          []string
	}{
		{"", "", "", nil},
		{none, "", "", []string{"ca_file: " + none + " holds no certificate"}},
		{"", none, "", []string{"go together"}},
		{none, none, none, []string{"ca_file", "client_cert: " + none}},
	} {
		errs := Check(c.ca, c.cert, c.key)
		if len(errs) != len(c.want) {
			t.Errorf("Check(%q, %q, %q) = %v; want %d errors", c.ca, c.cert, c.key, errs, len(c.want))
			continue
		}
		for i, err := range errs {
			if !strings.Contains(err.Error(), c.want[i]) {
				t.Errorf("Check(%q, %q, %q) = %v; want %q", c.ca, c.cert, c.key, err, c.want[i])
			}
		}
	}
}
