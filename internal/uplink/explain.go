package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/perch-edge/perch/internal/clock"
)

// Explain puts into words what an error of a connection means and what a person can do about it. The
// error stays in it. Errors that it does not know, and nil, are returned as they are.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	return explain(err, now)
}

// now is the machine's clock; a kernel that does not answer is one that is not synchronised.
func now() clock.Stamp {
	c, err := clock.System()
	if err != nil {
		return clock.Stamp{Wall: time.Now().UTC()}
	}
	return c.Now()
}

func explain(err error, now func() clock.Stamp) error {
	words := inWords(err, now)
	if words == "" {
		return err
	}
	return fmt.Errorf("%s (%w)", words, err)
}

func inWords(err error, now func() clock.Stamp) string {
	if proxy := (*ProxyError)(nil); errors.As(err, &proxy) {
		return proxyInWords(proxy, now)
	}
	for _, words := range []string{nameInWords(err), certificateInWords(err, now), handshakeInWords(err), stallInWords(err), routeInWords(err)} {
		if words != "" {
			return words
		}
	}
	return ""
}

func stallInWords(err error) string {
	if stall := (*StallError)(nil); errors.As(err, &stall) {
		return "there is a connection, and no answer: the receiver hangs or is overloaded, or the link is dead"
	}
	return ""
}

// proxyInWords explains a proxy of the environment.
func proxyInWords(e *ProxyError, now func() clock.Stamp) string {
	const look = "look at HTTPS_PROXY and NO_PROXY in the supervisor's environment"
	switch {
	case e.Status == http.StatusProxyAuthRequired:
		return "the proxy wants a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@" + e.Proxy
	case e.Status == http.StatusForbidden || e.Status == http.StatusMethodNotAllowed:
		return "the proxy does not allow connections to that receiver and port: ask who runs it, or " + look
	case e.Status >= 500:
		return "the proxy does not reach the receiver"
	case e.Status != 0:
		return "the proxy does not open the way: " + look
	}
	if cause := inWords(e.Err, now); cause != "" {
		return "the proxy cannot be used: " + cause + "; " + look
	}
	return "the proxy cannot be used: " + look
}

func nameInWords(err error) string {
	name := (*net.DNSError)(nil)
	switch {
	case !errors.As(err, &name):
		return ""
	case name.IsNotFound:
		return fmt.Sprintf("host %s not found: is the link up, is the name right?", name.Name)
	default:
		return fmt.Sprintf("no name server answers for %s: is the link up?", name.Name)
	}
}

// certificateInWords explains why a receiver is not trusted.
func certificateInWords(err error, now func() clock.Stamp) string {
	var (
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return validityInWords(invalid.Cert, now())
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate is not for %s: is the address right, or does a captive portal answer in the receiver's place?", name.Host)
	case errors.As(err, &unknown):
		return "the certificate is signed by an unknown authority: give its certificate as ca_file, unless somebody answers in the receiver's place"
	}
	return ""
}

// validityInWords explains a certificate that is too young or too old by the box's clock, which itself
// may be wrong.
func validityInWords(c *x509.Certificate, now clock.Stamp) string {
	if c == nil {
		return ""
	}
	wrong := !now.Synced || now.Wall.Before(built())
	here, day := now.Wall.Format(time.RFC3339), time.DateOnly
	switch young := now.Wall.Before(c.NotBefore); {
	case young && wrong:
		return fmt.Sprintf("the box's clock says %s: the certificate is valid from %s on, and trusted once the clock is set", here, c.NotBefore.Format(day))
	case young:
		return fmt.Sprintf("the receiver's certificate is valid from %s on, and it is %s", c.NotBefore.Format(day), here)
	case wrong:
		return fmt.Sprintf("the receiver's certificate expired on %s; the box's clock, which says %s, was not set by a time server", c.NotAfter.Format(day), here)
	}
	return fmt.Sprintf("the receiver's certificate expired on %s: it has to be renewed there", c.NotAfter.Format(day))
}

// built is when this program was built, which no right clock is before; the zero time where that is not known.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			at, _ := time.Parse(time.RFC3339, s.Value) // zero where it is none
			return at
		}
	}
	return time.Time{}
}

// handshakeInWords explains two sides that do not speak the same, or do not want each other.
func handshakeInWords(err error) string {
	var record tls.RecordHeaderError
	text := err.Error() // crypto/tls and net/http give some of these only as texts
	_, alert, alerted := strings.Cut(text, "remote error: tls: ")
	switch {
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "that port does not speak TLS: is the port right, or does a captive portal answer in the receiver's place?"
	case strings.Contains(text, `malformed HTTP response "\x15\x03`):
		return "that port speaks TLS: want the scheme with TLS, such as https"
	case alerted && strings.Contains(alert, "certificate"):
		return "the receiver does not accept this box's certificate: look at client_cert"
	case alerted:
		return "the receiver ends the TLS handshake: it may want other versions or ciphers, or a client_cert"
	}
	return ""
}

// routeInWords explains a connection that does not come about, or breaks.
func routeInWords(err error) string {
	op := (*net.OpError)(nil)
	dialled := errors.As(err, &op) && op.Op == "dial"
	where := ""
	if dialled && op.Addr != nil {
		where = op.Addr.String()
	}
	switch {
	case dialled && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("%s refuses the connection: does the receiver run, is the port right?", where)
	case dialled && isV6(op.Addr) && (errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)):
		return fmt.Sprintf("the receiver's address %s is IPv6, and this box has no way there: does its network have IPv6?", where)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN):
		return "no way to the receiver: is the link up?"
	case dialled && errors.Is(err, syscall.ENOENT):
		return fmt.Sprintf("there is no socket %s: does the receiver run?", where)
	case dialled && errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("this user may not use the socket %s: look at its owner and mode", where)
	case dialled && op.Timeout():
		return fmt.Sprintf("%s does not answer: is the link up, is there a firewall?", where)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the receiver, or something on the way, closed the connection"
	}
	return ""
}

func isV6(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.To4() == nil
}
