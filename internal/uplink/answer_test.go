package uplink

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 17, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-5": 0, "soon": 0, "99999999999": LongestAfter, "99999999999999999999": 0,
		"Sun, 17 May 2026 09:01:30 GMT": 90 * time.Second, "Sun, 17 May 2026 08:00:00 GMT": 0, "Sun, 17 May 2036 09:00:00 GMT": LongestAfter,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("RetryAfter(%q) = %s; want %s", text, got, want)
		}
	}
	h := http.Header{"Retry-After": {"Sun, 17 May 2026 09:01:30 GMT"}, "Date": {"Sun, 17 May 2026 09:01:00 GMT"}}
	if got := RetryAfter(h, now); got != 30*time.Second {
		t.Errorf("RetryAfter by the receiver's clock = %s; want 30s", got)
	}
}

func TestOneLineCanDoNoHarm(t *testing.T) {
	got := OneLine("a\x00b\n\x1b[2Jc é " + strings.Repeat("x", 500))
	if len(got) > MaxLine+10 || strings.ContainsFunc(got, func(r rune) bool { return r != '…' && (r < ' ' || r > '~') }) {
		t.Errorf("OneLine(…) = %s; want one short line of plain letters", got)
	}
}
