package format

import (
	"strings"
	"testing"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
)

// A header that its publisher spaced over several lines is one line.
func TestPlainIsOneLine(t *testing.T) {
	const line = `{"v":1,"kind":"reading","node":"airpi-01","source":"air","stream":"environment","epoch":"000283baec0033c3","boot_id":"5f0c8f2e","seq":7,` +
		`"time":"2026-05-17T09:41:07.250000000Z","boot_ns":43223250000000,"synced":true,"columns":["temperature_c"],"values":[21.5]}`
	for _, text := range []string{line, strings.ReplaceAll(line, ",", ",\r\n\t")} {
		r, err := record.Parse("reading/air/environment", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (plain{}).Encode(&r); string(got) != line || err != nil {
			t.Errorf("Encode(%q) = %q, %v; want %q", text, got, err, line)
		}
	}
}
