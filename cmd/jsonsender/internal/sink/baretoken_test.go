package sink

import (
	"net/http"
	"testing"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
)

func TestAuthorize(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Bearer secret"},
		{Options{User: "u"}, "Basic dTpzZWNyZXQ="},
		{Options{Batch: format.Batch{BareToken: true}}, "secret"},
	} {
		c.o.Token = func() (string, error) { return "secret", nil }
		req, err := http.NewRequest(http.MethodPost, "https://receiver.example/", nil)
		if err == nil {
			err = authorize(req, &c.o)
		}
		if got := req.Header.Get("Authorization"); err != nil || got != c.want {
			t.Errorf("authorize(%+v) = %q, %v; want %q", c.o, got, err, c.want)
		}
	}
}
