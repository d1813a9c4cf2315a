package main

import "time"

// ailment keeps a service of the supervisor alive over errors that may pass, such
// as too many open files or a connection that was aborted: it reports the first of
// a kind, and pauses after each, so that one that stays does not spin.
type ailment struct {
	what   string
	report func(what string, err error)
	last   string
}

const pauseAfterError = 200 * time.Millisecond

func (a *ailment) met(err error) {
	if text := err.Error(); text != a.last {
		a.last = text
		a.report(a.what, err)
	}
	time.Sleep(pauseAfterError) //nolint:forbidigo // nothing tells when the system has recovered
}
