package sink

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"github.com/perch-edge/perch/internal/uplink"
)

// httpAnswer is what a receiver answered a POST.
type httpAnswer struct {
	status int
	header http.Header
	text   []byte // the first maxAnswer bytes
	size   int    // of the body that was posted, before compression
	early  bool   // it came before all of that was sent
}

// verdict returns Acknowledged or Refused, of what was posted, or the problem that says neither.
func (a *httpAnswer) verdict() (State, error) {
	switch {
	case a.status >= 200 && a.status < 300:
		return a.success()
	case a.status >= 300 && a.status < 400:
		return Unknown, &Problem{Ours: true, Err: fmt.Errorf("%s: it redirects to %s, where nothing is sent: is the address right, or does a captive portal answer in the receiver's place?",
			a.what(), uplink.OneLine(a.header.Get("Location")))}
	case a.status == http.StatusConflict: // of one record that is there already, say
		return Refused, nil
	}
	switch uplink.Judge(a.status) {
	case uplink.Refused:
		return Refused, nil
	case uplink.Denied:
		return Unknown, &Problem{Ours: true, Err: fmt.Errorf("the receiver %s%s", a.reason(), uplink.Advice(a.status))}
	}
	return Unknown, &Problem{RetryAfter: uplink.RetryAfter(a.header, time.Now()), Err: fmt.Errorf("the receiver %s", a.reason())}
}

// success returns Acknowledged for 200, 201, 202 and 204 that came after the whole body and are no web
// page: a captive portal, a login form and a server that shows its index answer 200 to everything.
func (a *httpAnswer) success() (State, error) {
	switch {
	case a.status > http.StatusNoContent || a.status == http.StatusNonAuthoritativeInfo:
		return Unknown, &Problem{Ours: true, Err: fmt.Errorf("%s, which does not acknowledge the records: want 200, 201, 202 or 204", a.what())}
	case a.early:
		return Unknown, &Problem{Err: fmt.Errorf("%s before it had all records", a.what())}
	case a.isWebPage():
		return Unknown, &Problem{Ours: true, Err: fmt.Errorf("%s with a web page, which does not acknowledge the records: is the address right, or does a captive portal answer in the receiver's place?", a.what())}
	}
	return Acknowledged, nil
}

// isWebPage reports whether the text is HTML. The media type alone does not tell: many a server labels
// its "ok" as text/html.
func (a *httpAnswer) isWebPage() bool {
	text := bytes.ToLower(bytes.TrimLeft(a.text, " \t\r\n\xef\xbb\xbf"))
	return uplink.IsPage(a.header) && bytes.HasPrefix(text, []byte("<")) ||
		bytes.HasPrefix(text, []byte("<!doctype html")) || bytes.HasPrefix(text, []byte("<html"))
}

func (a *httpAnswer) what() string {
	return fmt.Sprintf("the receiver answers %d %s", a.status, http.StatusText(a.status))
}

// reason is a refusal with the receiver's own words, in one line.
func (a *httpAnswer) reason() string {
	what := fmt.Sprintf("answers %d %s", a.status, http.StatusText(a.status))
	if len(a.text) == 0 || uplink.IsPage(a.header) {
		return what
	}
	return what + ": " + uplink.OneLine(string(a.text))
}
