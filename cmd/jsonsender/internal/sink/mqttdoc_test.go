package sink

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
	"github.com/perch-edge/perch/internal/boxtest"
)

// documented replaces paths of a documented block, each of which must be in it.
func documented(t *testing.T, language string, paths map[string]string) string {
	t.Helper()
	text := boxtest.Documented(t, "RECEIVERS.md", language)[0]
	for old, now := range paths {
		if !strings.Contains(text, old) {
			t.Fatalf("docs/RECEIVERS.md gives a %s without %q", language, old)
		}
		text = strings.ReplaceAll(text, old, now)
	}
	return text
}

// The broker of docs/RECEIVERS.md takes a box, all that it announces, and nothing under another's name.
func TestDocumentedBroker(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), boxtest.NewAuthority(t)
	cert, key := ca.SignFile(t, &x509.Certificate{IPAddresses: boxtest.Loopback()})
	passwords, acl := filepath.Join(dir, "passwords"), filepath.Join(dir, "acl")
	if err := errors.Join(os.WriteFile(acl, []byte(documented(t, "conf acl", nil)), 0o600), os.WriteFile(passwords, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"airpi-01", "homeassistant"} {
		if out, err := exec.Command("mosquitto_passwd", "-b", passwords, user, "right").CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			t.Skip("mosquitto_passwd is not installed: scripts/setup --test gets it")
		} else if err != nil {
			t.Fatalf("mosquitto_passwd = %v: %s", err, out)
		}
	}
	broker := boxtest.StartMosquitto(t, documented(t, "conf mosquitto", map[string]string{
		"listener 8883\n": "", "/etc/mosquitto/certs/broker.pem": cert, "/etc/mosquitto/certs/broker.key": key,
		"/etc/mosquitto/perch.passwords": passwords, "/etc/mosquitto/perch.acl": acl,
	}))
	public := boxtest.WritePEM(t, "CERTIFICATE", ca.Cert.Raw)
	sub := broker.Subscribe("#", "%t", "--cafile", public, "-u", "homeassistant", "-P", "right")

	o := mqttOptions(t, "mqtts://"+broker.Address)
	o.Node, o.User, o.Token, o.TLS = "airpi-01", "airpi-01", func() (string, error) { return "right", nil }, trust(ca)
	home, err := format.NewHome(format.HomeConfig{Node: o.Node, Prefix: "perch", Discovery: "homeassistant", Log: slog.New(slog.DiscardHandler),
		Streams: []format.HomeStream{{Source: "air", Stream: "environment", Columns: []string{"temperature_c"}}}})
	if err != nil {
		t.Fatal(err)
	}
	o.Companion = home
	m := newMQTT(t, o)
	// The records of these tests are of a node of another name, which this box may not publish for.
	if _, err := m.Deliver(context.Background(), mqttItems(t, 1)); !isOurs(err) {
		t.Errorf("Deliver() for another box = %v; want it not authorised", err)
	}
	boxtest.Poll(t, "the announcement", func() bool {
		text := strings.Join(sub.Lines(), "\n") + "\n"
		return strings.Contains(text, "homeassistant/device/airpi-01/config\n") && strings.Contains(text, "perch/airpi-01/air/status\n") &&
			strings.Contains(text, "perch/airpi-01/status\n")
	})
}
