package msg

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perch-edge/perch/pkg/shm"
)

func TestListenerTakesNoPart(t *testing.T) {
	t.Parallel()
	run, rings := folders(t)
	c := startCounter(t, run, rings, Retention{})
	defer c.bus.Close()
	l, err := Listen("reading/")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Connect("ipc://" + run + "/air.ipc"); err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	var last Message
	for ok := false; !ok; { // until the connection stands
		c.publish(t, 1)
		if last, ok, err = l.Next(ctx, time.Now().Add(5*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	before := last.Seq
	c.publish(t, 1)
	for last.Seq != Seq(c.n-1) {
		if last, _, err = l.Next(ctx, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if last.Topic() != "reading/air/count" || last.Seq <= before {
		t.Errorf("Next() = %s; want a later reading than %d", last.ID(), before)
	}
	if names := c.pub.Subscribers(); len(names) != 0 {
		t.Errorf("Subscribers() = %v; want nobody: a listener says no name", names)
	}
	streams, err := Streams(rings)
	if err != nil || len(streams) != 1 || len(streams[0].Ring.Readers) != 0 || streams[0].Topic != "reading/air/count" {
		t.Errorf("Streams() = %+v, %v; want the history of readings, without readers", streams, err)
	}
}

func TestListenerEndsWithItsContext(t *testing.T) {
	l, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, ok, err := l.Next(t.Context(), time.Now()); ok || err != nil {
		t.Errorf("Next() = %v, %v at its deadline; want no message and no error", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, ok, err := l.Next(ctx, time.Time{}); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, %v; want context.Canceled", ok, err)
	}
	for _, endpoint := range []string{"tcp://127.0.0.1:1", "ipc://relative", "ipc:///tmp/x.sock"} {
		if err := l.Connect(endpoint); err == nil {
			t.Errorf("Connect(%q) succeeded; want an error", endpoint)
		}
	}
}

func TestEndpointsTellsLiveFromLeft(t *testing.T) {
	t.Parallel()
	run, rings := folders(t)
	if _, err := Endpoints(run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Endpoints() of no folder = %v; want fs.ErrNotExist", err)
	}
	c := startCounter(t, run, rings, Retention{})
	defer c.bus.Close()
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: run + "/porch.video.ipc", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(run+"/plain.ipc", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Endpoints(run)
	if err != nil {
		t.Fatal(err)
	}
	want := []EndpointInfo{
		{Endpoint: "ipc://" + run + "/air.ipc", Source: "air", Live: true, PID: os.Getpid()},
		{Endpoint: "ipc://" + run + "/porch.video.ipc", Source: "porch", Frames: "video"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Endpoints(): want -, got +\n%s", diff)
	}
}

// One ring that says nonsense of itself must not hide the others.
func TestStreamsNamesTheBadOnes(t *testing.T) {
	t.Parallel()
	run, rings := folders(t)
	if _, err := Streams(rings); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Streams() of no folder = %v; want fs.ErrNotExist", err)
	}
	c := startCounter(t, run, rings, Retention{})
	defer c.bus.Close()
	dir, err := shm.OpenDir(rings)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w, err := shm.Create(dir, "porch.video", 1, shm.Options{Slots: 3, SlotBytes: 1, Meta: []byte(`{"topic":"frame/other/video"}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	got, err := Streams(rings)
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("Streams() = %v; want ErrMalformed of porch.video", err)
	}
	want := []StreamInfo{{Topic: "reading/air/count", Node: "box", BootID: c.bus.Clock().BootID()}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(StreamInfo{}, "Ring")); diff != "" {
		t.Errorf("Streams(): want -, got +\n%s", diff)
	}
}
