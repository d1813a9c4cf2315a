// Package credential reads the secrets and certificates that a box shows to, or expects from,
// a receiver.
//
//	token file (0600) or credential:NAME of systemd --> File, Token --> one request or connection
//	certificates (PEM)                              --> Roots, ClientCert, TLS
//
// A secret is read from its file for each use, so that one that was rotated needs no restart.
// A file that others can read is refused. No error repeats what is in a file.
package credential

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

	"github.com/perch-edge/perch/pkg/topology"
)

// Prefix marks a secret that systemd hands to the service
// (LoadCredential= in its unit).
const Prefix = "credential:"

// MaxBytes bounds a file that holds a secret.
const MaxBytes = 64 << 10

// ErrElsewhere is returned for a systemd credential outside the service that it is meant for, which
// alone can read it.
var ErrElsewhere = errors.New("there is no CREDENTIALS_DIRECTORY: systemd gives credentials to services only")

// File reads a secret from a file, or with Prefix from a credential of systemd. It fails when others
// may read the file, when it is no regular file, and when it has more than MaxBytes.
func File(name string) ([]byte, error) {
	p, forbidden := name, os.FileMode(0o077)
	if cred, ok := strings.CutPrefix(name, Prefix); ok {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, ErrElsewhere
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
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(text) > MaxBytes {
		err = fmt.Errorf("%s has more than %d bytes", p, MaxBytes)
	}
	return text, err
}

// Token reads a bearer token: one line of visible ASCII, without spaces.
func Token(name string) (string, error) {
	text, err := File(name)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s holds no token: want one line without spaces", name)
	}
	return token, nil
}

// Password reads one line, which may have spaces in it.
func Password(name string) (string, error) {
	text, err := File(name)
	if err != nil {
		return "", err
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" || strings.ContainsAny(line, "\r\n\x00") {
		return "", fmt.Errorf("%s holds no password: want one line", name)
	}
	return line, nil
}

// Roots reads the certificates (PEM) that a receiver's certificate is verified with; "" is the
// system's, as nil.
func Roots(name string) (*x509.CertPool, error) {
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

// ClientCert reads the certificate that the box shows a receiver, and its private key, which nobody
// else may read; both PEM.
func ClientCert(cert, key string) (*tls.Certificate, error) {
	secret, err := File(key)
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

// TLS is the configuration of connections to a receiver whose certificate is verified with the
// certificates in ca ("" is the system's), and which is shown the pair of cert and key ("" is
// none). The pair is read for each handshake, since certificates are renewed.
func TLS(ca, cert, key string) (*tls.Config, error) {
	roots, err := Roots(ca)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if cert != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return ClientCert(cert, key)
		}
	}
	return cfg, nil
}

// Check finds what is wrong with the files of ca_file, client_cert and client_key, each error with its
// key (topology.Bad). "" is a key that is not set.
func Check(ca, cert, key string) (errs []error) {
	if _, err := Roots(ca); err != nil {
		errs = append(errs, topology.Bad("ca_file", "%w", err))
	}
	switch {
	case (cert == "") != (key == ""):
		errs = append(errs, topology.Bad("client_cert", "client_cert and client_key go together"))
	case cert != "":
		if _, err := ClientCert(cert, key); err != nil {
			errs = append(errs, topology.Bad("client_cert", "%w", err))
		}
	}
	return errs
}
