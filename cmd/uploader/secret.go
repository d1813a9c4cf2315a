package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// credentialPrefix marks a secret that systemd hands to the service
// (LoadCredential= in its unit).
const credentialPrefix = "credential:"

// maxSecret bounds a file that holds a secret.
const maxSecret = 64 << 10

// errElsewhere says that a systemd credential can only be looked for by the
// service that it is meant for.
var errElsewhere = errors.New("there is no CREDENTIALS_DIRECTORY: systemd gives credentials to services only")

// readSecret reads a file that nobody else may read. It is read anew for each
// use, so that one that was exchanged needs no restart. Errors never tell what
// is in it.
func readSecret(name string) ([]byte, error) {
	p, forbidden := name, os.FileMode(0o077)
	if cred, ok := strings.CutPrefix(name, credentialPrefix); ok {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, errElsewhere
		}
		if cred == "" || cred != filepath.Base(cred) || cred[0] == '.' {
			return nil, fmt.Errorf("credential %.80q: want a name without a folder", cred)
		}
		// systemd may let the service in by an access list, which shows as
		// permission for the group; the folder is closed to all others.
		p, forbidden = filepath.Join(dir, cred), 0o037
	}
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would hang
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file (%s)", p, st.Mode())
	case st.Mode().Perm()&forbidden != 0:
		return nil, fmt.Errorf("%s has mode %#o, so that others can use the secret in it: chmod 600 %s", p, st.Mode().Perm(), p)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("%s has more than %d bytes", p, maxSecret)
	}
	return text, err
}

// readToken reads a bearer token.
func readToken(name string) (string, error) {
	text, err := readSecret(name)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token: want one line without spaces", name)
	}
	return token, nil
}

// keys are what S3 knows a client by.
type keys struct{ access, secret, session string }

var errKeys = errors.New("want the keys of s3 in a file: access_key=…, secret_key=… and perhaps session_token=…, one a line; or the first two values alone")

// readKeys reads a file of keys: NAME=VALUE a line, or two bare lines.
func readKeys(name string) (keys, error) {
	text, err := readSecret(name)
	if err != nil {
		return keys{}, err
	}
	k, ok := bareKeys(string(text))
	if !ok {
		k, ok = namedKeys(string(text))
	}
	if !ok {
		return keys{}, fmt.Errorf("%s: %w", name, errKeys)
	}
	return k, nil
}

// bareKeys reads two words of which the first is no name. A secret key may have
// a "=" in it.
func bareKeys(text string) (k keys, ok bool) {
	words := strings.Fields(text)
	if len(words) != 2 || strings.Contains(words[0], "=") || words[1][0] == '=' {
		return keys{}, false
	}
	return keys{access: words[0], secret: words[1]}, true
}

// namedKeys reads lines of a name and a value, with spaces or none about the "=".
func namedKeys(text string) (k keys, ok bool) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if strings.ContainsAny(value, " \t") {
			return keys{}, false
		}
		switch name {
		case "access_key":
			k.access = value
		case "secret_key":
			k.secret = value
		case "session_token":
			k.session = value
		case "": // an empty line
		default:
			return keys{}, false
		}
	}
	return k, k.access != "" && k.secret != ""
}

// readRoots reads the certificates that a receiver's is verified with; "" is
// the system's.
func readRoots(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", name)
	}
	return pool, nil
}

// readClientCert reads what the box shows a receiver.
func readClientCert(cert, key string) (*tls.Certificate, error) {
	secret, err := readSecret(key)
	if err != nil {
		return nil, err
	}
	public, err := os.ReadFile(cert)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(public, secret)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", cert, key, err)
	}
	return &pair, nil
}
