package sink

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func problemOf(t *testing.T, s Sink, items []Item, ours bool, words ...string) []Result {
	t.Helper()
	results, err := s.Deliver(t.Context(), items)
	if err == nil || isOurs(err) != ours {
		t.Fatalf("Deliver() = %v, %v (ours: %t); want an error, ours: %t", results, err, isOurs(err), ours)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Deliver() = _, %q; want %q in it", err, w)
		}
	}
	return results
}

func TestNATSWithoutStream(t *testing.T) {
	srv := startNATS(t)
	js := srv.admin(t)
	o, _ := natsOptions(t, srv.address())
	o.Stall = 2 * time.Second // a quarter of it passes in silence
	s := newNATS(t, o)
	items := readings(t, "a", 0, 9)
	problemOf(t, s, items, true, "no JetStream stream", "nats stream add --subjects 'perch.>'")
	stream := natsStream(t, js)
	deliver(t, s, items)
	if err := js.DeleteStream(t.Context(), "PERCH"); err != nil { // while the sink is connected
		t.Fatal(err)
	}
	problemOf(t, s, readings(t, "a", 10, 19), true, "no JetStream stream")
	// Another subscriber takes the messages, so that no "no responders" comes.
	if _, err := js.Conn().Subscribe("perch.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	problemOf(t, newNATS(t, o), items, true, "no JetStream stream")
	problemOf(t, s, items, true, "no JetStream stream")
	stream = natsStream(t, js)
	deliver(t, s, items)
	wantIDs(t, stream, items)
}

func TestNATSProblems(t *testing.T) {
	tests := []struct {
		name   string
		server func(*server.Options)
		stream func(*jetstream.StreamConfig)
		sink   func(*Options)
		ours   bool
		words  []string
	}{
		{"without JetStream", func(o *server.Options) { o.JetStream = false }, nil, nil, true, []string{"the server has none"}},
		{"a stream that acknowledges nothing", nil, func(c *jetstream.StreamConfig) { c.NoAck = true }, nil, true, []string{"no_ack"}},
		{"another stream than expected", nil, nil, func(o *Options) { o.Stream = "OTHER" }, true, []string{"no JetStream stream of the name OTHER"}},
		{"a full stream", nil, func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 3, jetstream.DiscardNew }, nil, false, []string{"maximum messages exceeded", "raise its limits"}},
		{"a full subject", nil, func(c *jetstream.StreamConfig) {
			c.MaxMsgsPerSubject, c.Discard, c.DiscardNewPerSubject = 3, jetstream.DiscardNew, true
		}, nil, false, []string{"per subject exceeded", "raise its limits"}},
		{"a full disk", func(o *server.Options) { o.JetStreamMaxStore = 2000 }, nil, nil, false, []string{"insufficient", "raise its limits"}},
		{"a token that is wrong", func(o *server.Options) { o.Authorization = "right" }, nil, func(o *Options) { o.Token = func() (string, error) { return "wrong", nil } }, true, []string{"Authorization"}},
		{"a server without TLS elsewhere", nil, nil, func(o *Options) { o.To.Host = strings.Replace(o.To.Host, "127.0.0.1", "127.0.0.1.test", 1) }, true, []string{"secure connection not available"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv := startNATS(t, func(o *server.Options) {
				if test.server != nil {
					test.server(o)
				}
			})
			if srv.opts.JetStream && srv.opts.Authorization == "" {
				natsStream(t, srv.admin(t), func(c *jetstream.StreamConfig) {
					if test.stream != nil {
						test.stream(c)
					}
				})
			}
			o, _ := natsOptions(t, srv.address())
			o.Dial = dialTo(srv.address())
			if test.sink != nil {
				test.sink(&o)
			}
			results := problemOf(t, newNATS(t, o), readings(t, "a", 0, 9), test.ours, test.words...)
			if n := count(results, Refused); n > 0 || test.ours && count(results, Unknown) != 10 {
				t.Errorf("results = %v; want none refused", results)
			}
		})
	}
}

func TestNATSOtherStreamThanExpected(t *testing.T) {
	srv := startNATS(t)
	js := srv.admin(t)
	stream := natsStream(t, js)
	natsStream(t, js, func(c *jetstream.StreamConfig) { c.Name, c.Subjects = "OTHER", []string{"other.>"} })
	o, _ := natsOptions(t, srv.address())
	o.Stream = "OTHER"
	problemOf(t, newNATS(t, o), readings(t, "a", 0, 2), true, "expected stream does not match")
	o.Stream = "PERCH"
	deliver(t, newNATS(t, o), readings(t, "a", 0, 2))
	wantIDs(t, stream, readings(t, "a", 0, 2))
}

// A mirror has no subjects: the stream that it mirrors takes the records.
func TestNATSMirror(t *testing.T) {
	srv := startNATS(t)
	js := srv.admin(t)
	natsStream(t, js, func(c *jetstream.StreamConfig) { c.Name = "ZERO" })
	mirror := natsStream(t, js, func(c *jetstream.StreamConfig) {
		c.Subjects, c.Mirror, c.Duplicates, c.MirrorDirect = nil, &jetstream.StreamSource{Name: "ZERO"}, 0, true
	})
	o, _ := natsOptions(t, srv.address())
	deliver(t, newNATS(t, o), readings(t, "a", 0, 9))
	natsHas(t, mirror, 10)
	o.Stream = "PERCH"
	problemOf(t, newNATS(t, o), readings(t, "a", 10, 11), true, "expected stream does not match")
	wantIDs(t, mirror, readings(t, "a", 0, 9))
}

func TestNATSRefusesWhatIsTooLarge(t *testing.T) {
	for _, limit := range []string{"max_payload", "max_msg_size"} {
		t.Run(limit, func(t *testing.T) {
			srv := startNATS(t, func(o *server.Options) {
				if limit == "max_payload" {
					o.MaxPayload = 1024
				}
			})
			stream := natsStream(t, srv.admin(t), func(c *jetstream.StreamConfig) {
				if limit == "max_msg_size" {
					c.MaxMsgSize = 1024
				}
			})
			o, _ := natsOptions(t, srv.address())
			items := readings(t, "a", 0, 3)
			items[1].Body = bytes.Repeat([]byte("x"), 2000)
			results, err := newNATS(t, o).Deliver(t.Context(), items)
			want := []State{Acknowledged, Refused, Acknowledged, Acknowledged}
			var got []State
			for _, r := range results {
				got = append(got, r.State)
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" || results[1].Reason == "" {
				t.Errorf("Deliver() = %v, %v; want one refused, with its reason", results, err)
			}
			wantIDs(t, stream, slices.Delete(items, 1, 2))
		})
	}
}

// box is a user that may publish its own subjects only.
func natsUser(name string, publish ...string) *server.User {
	return &server.User{Username: name, Password: name, Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX." + name + ".>"}}}}
}

func TestNATSPermissions(t *testing.T) {
	const ask = "$JS.API.STREAM.NAMES $JS.API.STREAM.INFO.PERCH $JS.API.DIRECT.GET.PERCH.perch.box.> $JS.API.CONSUMER.CREATE.PERCH.perch-box-send.perch.box.> $JS.API.CONSUMER.MSG.NEXT.PERCH.perch-box-send $JS.API.CONSUMER.DELETE.PERCH.perch-box-send"
	start := func(t *testing.T, publish ...string) (*cable, Sink, jetstream.JetStream, jetstream.Stream, fmt.Stringer) {
		srv := startNATS(t, func(o *server.Options) {
			o.Users = []*server.User{{Username: "admin", Password: "admin"}, natsUser("box", publish...)}
		})
		js := srv.admin(t, nats.UserInfo("admin", "admin"))
		stream := natsStream(t, js)
		o, log := natsOptions(t, srv.address())
		c := &cable{}
		o.Dial, o.User, o.Token = c.dial, "box", func() (string, error) { return "box\n", nil }
		return c, newNATS(t, o), js, stream, log
	}
	t.Run("those of a box suffice", func(t *testing.T) {
		c, s, js, stream, log := start(t, append(strings.Fields(ask), "perch.box.>")...)
		deliver(t, s, readings(t, "a", 0, 9))
		interrupt(t, s, c, stream, readings(t, "a", 10, 29), 30)
		outlast(t, js)
		deliver(t, s, readings(t, "a", 10, 39))
		wantIDs(t, stream, readings(t, "a", 0, 39))
		if log.String() != "" {
			t.Errorf("log = %s; want none", log)
		}
	})
	t.Run("nothing may be asked", func(t *testing.T) {
		c, s, js, stream, log := start(t, "perch.box.>")
		deliver(t, s, readings(t, "a", 0, 9))
		interrupt(t, s, c, stream, readings(t, "a", 10, 12), 13)
		outlast(t, js)
		deliver(t, s, slices.Concat(readings(t, "a", 10, 12), readings(t, "b", 0, 1)))
		wantIDs(t, stream, slices.Concat(readings(t, "a", 0, 12), readings(t, "a", 10, 12), readings(t, "b", 0, 1))) // three are there twice
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "permission") {
			t.Errorf("log = %s; want one warning", log)
		}
	})
	t.Run("nothing may be published", func(t *testing.T) {
		_, s, _, _, _ := start(t, strings.Fields(ask)...)
		results := problemOf(t, s, readings(t, "a", 0, 9), true, "denies it", "perch.box.>")
		if count(results, Unknown) != 10 {
			t.Errorf("results = %v; want all unknown", results)
		}
	})
	t.Run("one subject may not be published", func(t *testing.T) {
		_, s, _, stream, _ := start(t, append(strings.Fields(ask), "perch.box.air.a")...)
		results, err := s.Deliver(t.Context(), slices.Concat(readings(t, "b", 0, 3), readings(t, "a", 0, 3), readings(t, "b", 4, 4)))
		if err != nil || count(results, Acknowledged) != 4 || count(results, Refused) != 5 || !strings.Contains(results[8].Reason, "denies it") {
			t.Errorf("Deliver() = %v, %v; want five refused", results, err)
		}
		wantIDs(t, stream, readings(t, "a", 0, 3))
	})
	t.Run("answers may not be read", func(t *testing.T) {
		srv := startNATS(t, func(o *server.Options) {
			o.Users = []*server.User{natsUser("other", "perch.>")}
		})
		o, _ := natsOptions(t, srv.address())
		o.User, o.Token = "other", func() (string, error) { return "other", nil }
		problemOf(t, newNATS(t, o), readings(t, "a", 0, 9), true, "subscribe to answers")
	})
}
