package msg

import (
	"context"
	"testing"
	"time"
)

// ZMQ_FD tells of a message once, and only until somebody asks: a wait without
// a deadline must not miss it, whenever it comes.
func TestNoWakeIsLost(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	l, err := Listen("reading/", helloPrefix+"look")
	check(t, err)
	defer l.Close()
	check(t, l.Connect("ipc://"+run+"/air.ipc"))
	c.hears(t, "look")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, done := make(chan Seq, 1), make(chan error, 1)
	go func() {
		defer close(got)
		for {
			m, _, err := l.Next(ctx, time.Time{})
			if err != nil {
				done <- err
				return
			}
			got <- m.Seq
		}
	}()
	for n := range 5000 {
		c.publish(t, 1)
		select {
		case seq, ok := <-got:
			if !ok {
				t.Fatalf("Next() for message %d = %v; the listener sleeps on it", n, <-done)
			}
			if seq != Seq(n) {
				t.Fatalf("Next() = message %d; want %d", seq, n)
			}
		case <-time.After(5 * time.Second):
			cancel()
			<-done
			t.Fatalf("message %d is there and the listener sleeps on it", n)
		}
	}
	cancel()
	<-done
}
