package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	v5 "github.com/eclipse/paho.golang/packets"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// inFlight is how many QoS 1 messages the broker lets be under way: as many as jsonsender would send.
const inFlight = 500

// mosquittoReceiver is a mosquitto, and a subscriber that counts what it passes on.
type mosquittoReceiver struct {
	at       string
	cmd      *exec.Cmd
	conn     net.Conn
	counting sync.WaitGroup
}

func openMosquitto(ctx context.Context, dir string, t *tally) (receiver, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	r := &mosquittoReceiver{at: free.Addr().String()}
	port := free.Addr().(*net.TCPAddr).Port
	file := filepath.Join(dir, "mosquitto.conf")
	config := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nmax_inflight_messages %d\nmax_queued_messages 0\nlog_type error\n", port, inFlight)
	if err := errors.Join(free.Close(), os.WriteFile(file, []byte(config), 0o600)); err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	r.cmd = exec.CommandContext(ctx, "mosquitto", "-c", file)
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start mosquitto (scripts/setup --test gets it): %w", err)
	}
	if err := r.subscribe(ctx, t); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// subscribe counts records by the packets that come. It reads no more of them: what is measured is
// the sender.
func (r *mosquittoReceiver) subscribe(ctx context.Context, t *tally) (err error) {
	for begun := time.Now(); time.Since(begun) < 10*time.Second && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if r.conn, err = net.Dial("tcp", r.at); err == nil {
			break // it listens
		}
	}
	if err != nil {
		return fmt.Errorf("connect to mosquitto: %w", err)
	}
	hello := &v5.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "count", CleanStart: true, Properties: &v5.Properties{}}
	want := &v5.Subscribe{PacketID: 1, Properties: &v5.Properties{}, Subscriptions: []v5.SubOptions{{Topic: "perch/+/" + sensorName + "/#"}}}
	in := bufio.NewReaderSize(r.conn, 256<<10)
	for _, p := range []v5.Packet{hello, want} {
		if _, err := p.WriteTo(r.conn); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if _, err := skipPacket(in); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	r.counting.Go(func() {
		for {
			kind, err := skipPacket(in)
			if err != nil {
				return // closed
			}
			if kind == v5.PUBLISH {
				t.add(1)
			}
		}
	})
	return nil
}

// skipPacket reads a packet's type and passes over the rest (MQTT 5 section 2.1).
func skipPacket(in *bufio.Reader) (kind byte, err error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	length, err := binary.ReadUvarint(in)
	if err == nil {
		_, err = io.CopyN(io.Discard, in, int64(length))
	}
	return first >> 4, err
}

func (r *mosquittoReceiver) address() string    { return "mqtt://" + r.at }
func (r *mosquittoReceiver) settings() []string { return nil }

func (r *mosquittoReceiver) close() error {
	var err error
	if r.conn != nil {
		err = r.conn.Close()
	}
	err = errors.Join(err, r.cmd.Process.Signal(os.Interrupt))
	r.counting.Wait()
	return errors.Join(err, r.cmd.Wait())
}

// natsReceiver is a NATS server in this process, with a stream in RAM.
type natsReceiver struct {
	server *server.Server
	conn   *nats.Conn
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

func openNATS(ctx context.Context, dir string, t *tally) (receiver, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		return nil, fmt.Errorf("open NATS server: %w", err)
	}
	r := &natsReceiver{server: s}
	ctx, r.stop = context.WithCancel(ctx)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.Join(errors.New("open NATS server: not ready in 10 s"), r.close())
	}
	if err := r.count(ctx, t); err != nil {
		return nil, errors.Join(fmt.Errorf("open NATS stream: %w", err), r.close())
	}
	return r, nil
}

// count asks every few milliseconds how much the stream holds.
func (r *natsReceiver) count(ctx context.Context, t *tally) (err error) {
	if r.conn, err = nats.Connect(r.server.ClientURL(), nats.InProcessServer(r.server)); err != nil {
		return err
	}
	js, err := jetstream.New(r.conn)
	if err != nil {
		return err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "PERCH", Subjects: []string{"perch.>"}, Storage: jetstream.MemoryStorage})
	if err != nil {
		return err
	}
	r.ended.Go(func() {
		for held := 0; ctx.Err() == nil; time.Sleep(4 * time.Millisecond) {
			if info, err := stream.Info(ctx); err == nil {
				t.add(int(info.State.Msgs) - held)
				held = int(info.State.Msgs)
			}
		}
	})
	return nil
}

func (r *natsReceiver) address() string    { return r.server.ClientURL() }
func (r *natsReceiver) settings() []string { return nil }

func (r *natsReceiver) close() error {
	r.stop()
	r.ended.Wait()
	if r.conn != nil {
		r.conn.Close()
	}
	r.server.Shutdown()
	r.server.WaitForShutdown()
	return nil
}
