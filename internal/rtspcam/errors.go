package rtspcam

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
)

// tls verifies the camera's certificate by the system's authorities or those
// of CAFile.
func (c Config) tls() (*tls.Config, error) {
	if c.CAFile == "" {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	roots, own := x509.NewCertPool(), map[string]bool{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read ca_file %s: %w", c.CAFile, err)
		}
		roots.AddCert(cert)
		own[string(cert.Raw)] = true
	}
	if len(own) == 0 {
		return nil, fmt.Errorf("read ca_file %s: no certificate in it: want PEM (BEGIN CERTIFICATE)", c.CAFile)
	}
	verify := func(state tls.ConnectionState) error {
		if own[string(state.PeerCertificates[0].Raw)] {
			return nil // the camera's own certificate is in the file, whatever its name
		}
		options := x509.VerifyOptions{Roots: roots, DNSName: c.Address.url.Hostname(), Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
	// VerifyConnection verifies in place of the library.
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: verify}, nil
}

// Error is an error whose text shows no secrets.
type Error struct {
	text string
	err  error
}

func (e *Error) Error() string { return e.text }

// Unwrap is the error as it was.
func (e *Error) Unwrap() error { return e.err }

// explain turns an error of the library into one that says what to do, without
// secrets.
func explain(cfg Config, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if had := (*Error)(nil); errors.As(err, &had) {
		return had
	}
	text := cfg.Address.String() + ": " + cfg.Address.Redact(words(cfg, err))
	if errors.Is(err, io.EOF) {
		err = nil // the end of a connection is no regular end of a stream
	}
	return &Error{text, err}
}

// Refused reports whether the camera refused the user or the password. Retrying
// soon may make it lock the user out.
func Refused(err error) bool {
	status := liberrors.ErrClientBadStatusCode{}
	return errors.As(err, &status) && (status.Code == base.StatusUnauthorized || status.Code == base.StatusForbidden)
}

func words(cfg Config, err error) string {
	var status liberrors.ErrClientBadStatusCode
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &status):
		return statusWords(cfg, status)
	case errors.As(err, &liberrors.ErrClientAuthSetup{}):
		return "401 Unauthorized, and it offers no way of authentication that is supported: want Digest (or Basic with allow_basic = true)"
	case errors.As(err, &unknown):
		return fmt.Sprintf("its certificate is not signed by a known authority: set ca_file to a file with the camera's certificate or that of its authority (%v)", err)
	case errors.As(err, &name):
		return fmt.Sprintf("its certificate is for another name: set ca_file to a file with this certificate if it is the camera's (%v)", err)
	case errors.As(err, &invalid):
		return fmt.Sprintf("its certificate is not valid (%v): renew it in the camera, or set ca_file to a file with it", err)
	case errors.As(err, &record):
		return "it does not speak TLS on this port: want rtsp://, or the port of rtsps:// (322 as a rule)"
	case errors.Is(err, context.DeadlineExceeded) && cfg.Address.secure():
		return "no answer to the TLS handshake: want rtsp://, or the port of rtsps:// (322 as a rule)"
	case errors.Is(err, io.EOF) && cfg.Address.secure():
		return "the camera closed the connection; if it does not speak TLS on this port: want rtsp://, or the port of rtsps:// (322 as a rule)"
	case errors.Is(err, io.EOF):
		return "the camera closed the connection"
	case errors.As(err, &liberrors.ErrClientTCPTimeout{}):
		return fmt.Sprintf("nothing came for %v", max(cfg.Timeout, cfg.StallAfter))
	case errors.As(err, &liberrors.ErrClientUDPTimeout{}):
		return fmt.Sprintf(`nothing came over UDP for %v, usually because of a firewall: set transport = "tcp"`, max(cfg.Timeout, cfg.StallAfter))
	case errors.As(err, &liberrors.ErrClientRequestTimedOut{}):
		return fmt.Sprintf("no answer within %v: check the address and the camera's power and network", max(cfg.Timeout, cfg.StallAfter))
	case errors.As(err, &liberrors.ErrClientSDPInvalid{}):
		return fmt.Sprintf(`its description of the stream cannot be read (%v); if other players can, use input = "exec:ffmpeg ..." and raw video`, err)
	case errors.As(err, &liberrors.ErrClientServerPortsNotProvided{}):
		return `the camera names no ports for UDP: want transport = "tcp"`
	}
	return err.Error()
}

func statusWords(cfg Config, status liberrors.ErrClientBadStatusCode) string {
	text := fmt.Sprintf("%d %s", status.Code, status.Message)
	switch status.Code {
	case base.StatusUnauthorized:
		if !cfg.Address.hasCredentials() {
			return text + ": want user and password in the address, as rtsp://USER:PASSWORD@HOST/PATH, with %40 for an @"
		}
		return text + ": the camera refuses this user and password: correct them in input"
	case base.StatusForbidden:
		return text + ": this user may not see this stream: check the users in the camera's settings"
	case base.StatusNotFound:
		return text + ": the camera has no such stream: see its manual for the path"
	case base.StatusUnsupportedTransport:
		if cfg.Address.secure() {
			return text + ": the camera refuses TCP, and UDP would not be encrypted: allow RTP over TCP in the camera, or use rtsp://"
		}
		return text + ": the camera refuses TCP and UDP: allow RTP over TCP in its settings"
	case base.StatusSessionNotFound:
		return text + ": the camera ended the session"
	case base.StatusNotEnoughBandwidth:
		return text + ": the camera accepts no further viewer: end others, or use a smaller stream"
	case base.StatusMovedPermanently, base.StatusFound:
		return text + ": the camera redirects to another address: set that one in input"
	}
	return text
}
