package sink

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/msg"
)

// NATSToken writes a name as one token of a NATS subject: ASCII letters, digits, - and _ stay,
// every other byte becomes % and two hexadecimal digits (RFC 3986 section 2.1). So the name can be
// read back, two names never become one token, and no dot, space, * or > gets into a subject.
func NATSToken(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// natsSubject is where a record goes: <prefix>.<node>.<source>.<stream>.
func natsSubject(prefix string, h *msg.Header) string {
	return prefix + "." + NATSToken(h.Node) + "." + NATSToken(string(h.Source)) + "." + NATSToken(string(h.Stream))
}

// CheckNATSPrefix checks the first words of subjects: tokens with dots between them, none empty,
// without wildcards. What begins with $ is the servers' own.
func CheckNATSPrefix(prefix string) error {
	for token := range strings.SplitSeq(prefix, ".") {
		if token == "" || token != NATSToken(token) {
			return errors.New("want words of a-z, A-Z, 0-9, - and _ with single dots between them")
		}
	}
	return nil
}

// natsPort is the port that IANA has registered for NATS.
const natsPort = "4222"

var errNATSAddress = errors.New("want nats://HOST[:PORT][,HOST[:PORT]]... without a path: the servers of one cluster")

// natsServers are the servers that an address names, as URLs. local is true when all of them are
// on this machine.
func natsServers(to *url.URL) (servers []string, local bool, err error) {
	if to.Path != "" && to.Path != "/" || to.RawQuery != "" || to.Fragment != "" {
		return nil, false, fmt.Errorf("%s: %w", to.Redacted(), errNATSAddress)
	}
	local = true
	for address := range strings.SplitSeq(to.Host, ",") {
		host, port := address, natsPort
		if h, p, err := net.SplitHostPort(address); err == nil {
			host, port = h, p
		}
		if host = strings.Trim(host, "[]"); host == "" || port == "" {
			return nil, false, fmt.Errorf("%s: %w", to.Redacted(), errNATSAddress)
		}
		servers = append(servers, "nats://"+net.JoinHostPort(host, port))
		local = local && uplink.IsLocal(host)
	}
	return servers, local, nil
}
