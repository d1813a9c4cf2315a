// Package badline is a line between a program under test and its receiver that can be made bad.
//
//	program --> Line (slow, cut, reset, silent: its toxics) --> receiver
//
// It is a room of its own, so that only the tests that use toxiproxy are linked with it.
package badline

import (
	"context"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Line is a proxy before a receiver, which makes the line as bad as its toxics say.
type Line struct {
	Listen string // HOST:PORT
	t      testing.TB
	proxy  *toxiproxy.Proxy
}

// New starts a line to an address. It is good until Toxic makes it bad.
func New(t testing.TB, address string) *Line {
	t.Helper()
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "line", "127.0.0.1:0", address)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	return &Line{Listen: proxy.Listen, t: t, proxy: proxy}
}

// Toxic adds a toxic, written as toxiproxy's JSON.
func (l *Line) Toxic(text string) {
	l.t.Helper()
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		l.t.Fatal(err)
	}
}

// Cure makes the line good again.
func (l *Line) Cure() {
	l.t.Helper()
	l.proxy.Toxics.ResetToxics(context.WithoutCancel(l.t.Context()))
}
