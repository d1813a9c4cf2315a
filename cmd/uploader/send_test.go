package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// What lies in ready/ goes by class, the newest first, each with its sidecar,
// and leaves its receipt.
func TestSendsByClassTheNewestFirst(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("parallel = 1\npriority = [\"losses\", \"clips\"]")))
	s := newShop(t, b.Dir+"/store")
	csv, clip, losses, clip2, picture := s.put(".csv", "a,b\n"), s.put(".mp4", "old"), s.put(".jsonl", "{}\n"), s.put(".mp4", "new"), s.put(".jpg", "")
	events := b.Follow(b.Bus("events"), []msg.Kind{msg.KindFile}, "send")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 5)
	var want []string
	for _, side := range []*sidecar.Sidecar{losses, clip2, clip, picture, csv} { // what is not named: the newest first
		want = append(want, side.Name, string(side.ID)+".json")
	}
	if diff := cmp.Diff(want, server.requests(http.MethodPut)); diff != "" {
		t.Errorf("order of what was sent (-want +got):\n%s", diff)
	}
	for range 5 {
		m := events.Next()
		if f, err := m.File(); err != nil || f.State != "sent" {
			t.Errorf("file message %+v (%v); want state sent", f, err)
		}
	}
	p.Stop()
	server.wantOnce(t, csv, clip, losses, clip2, picture)
	s.wantSent(csv, clip, losses, clip2, picture)
}

// A message is heard at once; what it says of a file that is not there is not
// believed.
func TestHearsOfFiles(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	bus := b.Bus("maker")
	pub, err := bus.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	out, err := pub.Files("files", msg.Retention{Messages: 16, MessageBytes: 1 << 14})
	if err != nil {
		t.Fatal(err)
	}
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send")
	p.Ready()
	side := s.put(".csv", "a,b\n")
	forged := "maker_20260517T090000Z_0000000000000001-999999"
	for _, id := range []string{forged, "../../etc/passwd", string(side.ID)} {
		if _, err := out.Publish(bus.Clock().Now(), id, "ready", []byte(`{}`)); err != nil && !strings.Contains(id, "..") {
			t.Fatal(err)
		}
	}
	s.wait(spool.Sent, 1)
	states.State("a forged message counted", func(st msg.State) bool { return st.Counters["unknown_files"] >= 1 && st.Counters["sent_files"] == 1 })
	p.Stop()
	server.wantOnce(t, side)
	s.wantSent(side)
}
