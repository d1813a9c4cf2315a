package main

import (
	"net/http"

	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/internal/redact"
	"github.com/perch-edge/perch/internal/uplink"
)

// newTransport is the way to the receiver, whose certificate is always verified. All uploads share its limit.
func newTransport(cfg *Config, sent func(int)) (*http.Transport, error) {
	trust, err := credential.TLS(cfg.CAFile, cfg.ClientCert, cfg.ClientKey)
	if err != nil {
		return nil, err
	}
	link := uplink.New(uplink.Settings{Stall: cfg.StallAfter.D(), Limit: int64(cfg.Limit), Sent: sent})
	t := uplink.Transport(link.DialStrict, cfg.StallAfter.D()/2)
	t.TLSClientConfig, t.MaxIdleConnsPerHost = trust, cfg.Parallel
	return t, nil
}

// secretsOf are those of a request that is made with keys of S3.
func secretsOf(file string) func(*http.Request) redact.Secrets {
	return func(*http.Request) redact.Secrets {
		k, err := readKeys(file)
		if err != nil { // it was made with keys that are no more
			return nil
		}
		return redact.Secrets{k.secret, k.session}
	}
}
