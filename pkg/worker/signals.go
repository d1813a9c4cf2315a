package worker

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signals is a context that the first SIGINT or SIGTERM cancels; after that
// the signals end the process as usual.
func signals() (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}

// sameOrder is how long after the first signal another one is the same order: a
// shell, a wrapper or the kernel may send it twice, and a person is not as quick.
const sameOrder = 300 * time.Millisecond

// stopSignals is a context that the first SIGINT, SIGTERM or SIGHUP cancels. A
// later SIGINT or SIGTERM ends the process as usual. A later SIGHUP does not: a
// terminal that closes sends two within milliseconds.
func stopSignals() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	came := make(chan os.Signal, 8)
	signal.Notify(came, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signal.Notify(came, syscall.SIGHUP)
	}
	quit := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case s := <-came:
				switch {
				case first.IsZero():
					first = time.Now()
					cancel()
				case s != syscall.SIGHUP && time.Since(first) > sameOrder:
					signal.Reset(s)
					_ = syscall.Kill(os.Getpid(), s.(syscall.Signal)) // as usual
				}
			case <-quit:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		close(quit)
		cancel()
	}
}
