package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/paho"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// batch is how many records jsonsender sends together, and has under way, by default.
	batch = 500
	// natsPending is how many it has under way to NATS.
	natsPending = 256
	// natsStall bounds how long a publication waits for one of them to be acknowledged.
	natsStall = 30 * time.Second
)

// bareLoopCommand sends records as a program does that is nothing but a loop around the client
// library. It is told "go", and stays until its stdin ends.
type bareLoopCommand struct {
	To   string `required:""`
	Rows int    `required:""`
}

// Run obeys until stdin ends.
func (c *bareLoopCommand) Run(ctx context.Context) error {
	to, err := url.Parse(c.To)
	if err != nil {
		return fmt.Errorf("bare loop: %w", err)
	}
	records := make([][]byte, c.Rows)
	for i := range records {
		records[i] = recordLike(i)
	}
	ctx, lines := orders(ctx)
	if err := answer(struct{}{}); err != nil {
		return err
	}
	for range lines {
		if err := bareLoop(ctx, to, records); err != nil && ctx.Err() == nil {
			return fmt.Errorf("bare loop to %s: %w", c.To, err)
		}
	}
	return nil
}

// recordLike is as jsonsender's records of rowPublisherCommand's readings are.
func recordLike(n int) []byte {
	return fmt.Appendf(nil, `{"v":1,"kind":"reading","source":"air","stream":"environment","epoch":"18b2c5d0f3a9e671","seq":%d,`+
		`"time":"2026-01-01T00:00:00.%09dZ","boot_ns":%d,"boot_id":"7f5e26a4-36a5-4d8c-9a0c-1f2e3d4c5b6a","node":"bench","synced":true,`+
		`"columns":["temperature_c","pressure_pa","humidity_pct"],"values":[%v,%v,%v]}`,
		n, n*1000, 15_000_000_000_000+n, 20+float64(n%640)/64, 101325+float64(n%64)/64, 50+float64(n%1280)/64)
}

// recordID is the id of recordLike(n).
func recordID(n int) string { return fmt.Sprintf("bench/air/environment/18b2c5d0f3a9e671/%d", n) }

func bareLoop(ctx context.Context, to *url.URL, records [][]byte) error {
	switch to.Scheme {
	case "tcp":
		return bareLines(ctx, "tcp", to.Host, records)
	case "unix":
		return bareLines(ctx, "unix", strings.TrimPrefix(to.String(), "unix:"), records)
	case "ws":
		return bareSocket(ctx, to.String(), records)
	case "http":
		return barePosts(ctx, to.String(), records)
	case "mqtt":
		return bareMQTT(ctx, to.Host, records)
	case "nats":
		return bareNATS(ctx, to.String(), records)
	}
	return errors.New("there is no such loop")
}

// bareLines keeps batch lines under way.
func bareLines(ctx context.Context, network, address string, records [][]byte) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	window, read := make(chan struct{}, batch), make(chan error, 1)
	go func() {
		in := bufio.NewReaderSize(conn, 64<<10)
		for range records {
			if _, err := in.ReadSlice('\n'); err != nil {
				read <- err
				return
			}
			<-window
		}
		read <- nil
	}()
	out := bufio.NewWriterSize(conn, 16<<10)
	for _, r := range records {
		select {
		case window <- struct{}{}:
		default:
			if err := out.Flush(); err != nil {
				return err
			}
			window <- struct{}{}
		}
		if _, err := out.Write(append(r, '\n')); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), <-read)
}

// bareSocket keeps batch messages under way.
func bareSocket(ctx context.Context, address string, records [][]byte) error {
	conn, _, err := websocket.Dial(ctx, address, nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	window, read := make(chan struct{}, batch), make(chan error, 1)
	go func() {
		for range records {
			if _, _, err := conn.Read(ctx); err != nil {
				read <- err
				return
			}
			<-window
		}
		read <- nil
	}()
	for _, r := range records {
		window <- struct{}{}
		if err := conn.Write(ctx, websocket.MessageText, r); err != nil {
			return err
		}
	}
	return <-read
}

// barePosts posts one batch after the other.
func barePosts(ctx context.Context, address string, records [][]byte) error {
	for first := 0; first < len(records); first += batch {
		body := bytes.Join(records[first:min(first+batch, len(records))], []byte(","))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, io.MultiReader(strings.NewReader("["), bytes.NewReader(body), strings.NewReader("]")))
		if err != nil {
			return err
		}
		req.ContentLength = int64(len(body) + 2)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusNoContent {
			return fmt.Errorf("answer %s: %w", res.Status, err)
		}
	}
	return nil
}

// bareMQTT publishes with QoS 1; the library keeps as many under way as the broker takes.
func bareMQTT(ctx context.Context, address string, records [][]byte) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	client := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := client.Connect(ctx, &paho.Connect{ClientID: "bare", CleanStart: true, KeepAlive: 30}); err != nil {
		return err
	}
	for n, r := range records {
		p := &paho.Publish{QoS: 1, Topic: "perch/bench/air/environment", Payload: r,
			Properties: &paho.PublishProperties{User: paho.UserProperties{{Key: "id", Value: recordID(n)}}}}
		if _, err := client.PublishWithOptions(ctx, p, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend}); err != nil {
			return err
		}
	}
	<-ctx.Done() // what is under way is acknowledged meanwhile
	return client.Disconnect(&paho.Disconnect{})
}

// bareNATS publishes to JetStream, with ids as jsonsender's.
func bareNATS(ctx context.Context, address string, records [][]byte) error {
	conn, err := nats.Connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(natsPending))
	if err != nil {
		return err
	}
	for n, r := range records {
		m := nats.NewMsg("perch.bench.air.environment")
		m.Data = r
		if _, err := js.PublishMsgAsync(m, jetstream.WithMsgID(recordID(n)), jetstream.WithStallWait(natsStall)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
