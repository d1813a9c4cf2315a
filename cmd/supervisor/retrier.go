package main

import "time"

// retrier keeps one of the supervisor's services going after errors that may pass,
// such as too many open files or an aborted connection. It reports an error unless
// it is the same as the last one, and pauses after each, so that the loop does not spin.
type retrier struct {
	what   string
	report func(what string, err error)
	last   string
}

const pauseAfterError = 200 * time.Millisecond

func (r *retrier) after(err error) {
	if text := err.Error(); text != r.last {
		r.last = text
		r.report(r.what, err)
	}
	time.Sleep(pauseAfterError) //nolint:forbidigo // nothing tells when the system has recovered
}
