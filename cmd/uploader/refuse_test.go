package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// A file that is refused goes to rejected/ after its attempts, also over a
// restart, and meanwhile all others go.
func TestPoisonBlocksNobody(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("attempts = 3\nretry_most = \"1s\"\nparallel = 1")))
	s := newShop(t, b.Dir+"/store")
	first := s.put(".mp4", "fine")
	poison := s.put(".mp4", strings.Repeat("x", 1<<20)) // the newest: it is tried first
	var tries atomic.Int64
	server.be(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, string(poison.ID)) {
			return false
		}
		tries.Add(1)
		http.Error(w, "too large\x1b[31m\n<b>for us</b>", http.StatusRequestEntityTooLarge)
		return true
	})
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState, msg.KindFile}, "send")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	boxtest.Poll(t, "a refusal in the sidecar", func() bool {
		side, err := s.spool.Sidecar(spool.Ready, poison.ID)
		return err == nil && side.Upload != nil && side.Upload.Attempts >= 1
	})
	p.Stop() // it is not forgotten
	s.put(".mp4", "fine")
	p = b.Start("uploader", "send")
	s.wait(spool.Rejected, 1)
	s.wait(spool.Sent, 2)
	states.State("a rejected file counted", func(st msg.State) bool { return st.Counters["rejected_files"] == 1 && st.Trouble == "" })
	p.Stop()
	got := s.sidecarIn(spool.Rejected, poison.ID)
	reason := got.History[len(got.History)-1].Reason
	if got.State() != "rejected" || tries.Load() != 3 || !strings.Contains(reason, `413 Request Entity Too Large: "too large [31m <b>for us</b>"`) {
		t.Errorf("state %q after %d attempts, reason %q; want it rejected after 3, with the answer", got.State(), tries.Load(), reason)
	}
	if got, want := s.sidecarIn(spool.Sent, first.ID).State(), "sent"; got != want {
		t.Errorf("the file beside it is %q; want %q", got, want)
	}
	// Once the receiver is mended a person may have it sent again.
	server.be(nil)
	out, err := exec.Command("uploader", "retry", b.Topology, "--name", "send").CombinedOutput()
	if err != nil || string(out) != "1 of 1 rejected files wait to be sent again\n" {
		t.Errorf("uploader retry = %v: %s; want one file", err, out)
	}
	p = b.Start("uploader", "send")
	s.wait(spool.Sent, 3)
	if got := s.sidecarIn(spool.Sent, poison.ID); got.Receipt == nil || got.State() != "sent" {
		t.Errorf("the file that was rejected is %q, receipt %+v; want it sent", got.State(), got.Receipt)
	}
	p.Stop()
}

// 401, 403 and those about the address are an alarm, and cost no file its place.
func TestShutOutRejectsNothing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 405} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			server.be(func(w http.ResponseWriter, r *http.Request) bool {
				http.Error(w, "your token "+r.Header.Get("Authorization")+" is none", status)
				return true
			})
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("s3cr3t-t0k3n\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			b := boxtest.New(t, fleet(server.keys(fmt.Sprintf("attempts = 1\ntoken_file = %q", token))))
			s := newShop(t, b.Dir+"/store")
			for range 5 {
				s.put(".csv", "a,b\n")
			}
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("an alarm, and a pause of minutes", func(st msg.State) bool {
				return strings.Contains(st.Trouble, "nothing can be sent to ") && st.Gauges["pause_s"] > 50
			})
			if n := st.Counters["denied_attempts"]; n < 1 || n > 2 {
				t.Errorf("%d attempts; want one, or two that were under way together", n)
			}
			p.Stop()
			if got := s.in(spool.Ready); len(got) != 5 {
				t.Errorf("%d files in ready/; want all 5", len(got))
			}
			wantNoSecret(t, b, p, "s3cr3t-t0k3n")
		})
	}
}

// wantNoSecret looks for a secret wherever the uploader writes.
func wantNoSecret(t *testing.T, b *boxtest.Box, p *boxtest.Process, secret string) {
	t.Helper()
	if strings.Contains(p.Log(), secret) {
		t.Error("the secret is in the log")
	}
	err := filepath.WalkDir(b.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), secret) {
			t.Errorf("the secret is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The token goes along, and one that was exchanged is used without a restart.
func TestTokenIsReadAnew(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	var wanted atomic.Value
	wanted.Store("Bearer first")
	server.be(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == wanted.Load() {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := boxtest.New(t, fleet(server.keys(fmt.Sprintf("retry_most = \"1s\"\ntoken_file = %q", token))))
	s := newShop(t, b.Dir+"/store")
	p := b.Start("uploader", "send")
	one := s.put(".csv", "1\n")
	p.Ready()
	p.Stop()
	p = b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	wanted.Store("Bearer second")
	if err := os.WriteFile(token, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := s.put(".csv", "2\n")
	p.Stop()
	p = b.Start("uploader", "send")
	s.wait(spool.Sent, 2)
	p.Stop()
	server.wantOnce(t, one, two)
	wantNoSecret(t, b, p, "second")
}

// A storm of 503 and 429 ends with everything sent once; while a receiver fails
// it is asked by one file at a time, and not before Retry-After.
func TestStorm(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	var n, atOnce, most atomic.Int64
	var quiet atomic.Pointer[time.Time]
	server.be(func(w http.ResponseWriter, r *http.Request) bool {
		if until := quiet.Load(); until != nil && time.Now().Before(*until) {
			t.Errorf("%s %s before Retry-After is over", r.Method, r.URL.Path)
		}
		most.Store(max(most.Load(), atOnce.Add(1)))
		defer atOnce.Add(-1)
		switch i := n.Add(1); {
		case i == 4: // alone: the others have failed
			until := time.Now().Add(990 * time.Millisecond)
			quiet.Store(&until)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case i < 8:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			return false
		}
		return true
	})
	b := boxtest.New(t, fleet(server.keys("retry_most = \"1s\"\nparallel = 1")))
	s := newShop(t, b.Dir+"/store")
	var sides []*sidecar.Sidecar
	for i := range 20 {
		sides = append(sides, s.put(".csv", fmt.Sprint(i)))
	}
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 20)
	p.Stop()
	server.wantOnce(t, sides...)
	s.wantSent(sides...)
}

// Bytes that are not those that were written are not sent.
func TestDamagedFileIsNotSent(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".csv", "a,b\n")
	if err := os.WriteFile(b.Dir+"/store/ready/"+side.Name, []byte("a,c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := s.put(".csv", "c,d\n")
	p := b.Start("uploader", "send")
	s.wait(spool.Quarantine, 1)
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, good)
	if got := s.sidecarIn(spool.Quarantine, side.ID); got.State() != "quarantine" || !strings.Contains(got.History[1].Reason, "damaged") {
		t.Errorf("history %+v; want quarantine, damaged", got.History)
	}
}

// A file that was made before the clock was right is dated before it is sent.
func TestTimeIsCorrectedBeforeTheUpload(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	s.edit = func(side *sidecar.Sidecar) { side.Start.Synced, side.End.Synced = false, false }
	side := s.put(".csv", "a,b\n")
	clock := `{"boot_id":"another-boot","boot_ns":3000000000,"time":"2026-05-18T00:00:00.000000000Z"}` + "\n"
	if err := os.WriteFile(b.Dir+"/store/clock.jsonl", []byte(clock), 0o644); err != nil {
		t.Fatal(err)
	}
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	got, err := sidecar.Decode(server.things[string(side.ID)+".json"])
	if err != nil || got.TimeCorrected == nil || got.TimeCorrected.Start.Format(time.RFC3339) != "2026-05-17T23:59:58Z" {
		t.Errorf("the receiver's sidecar says %+v (%v); want the time as reckoned from the anchor", got.TimeCorrected, err)
	}
	server.wantOnce(t, side)
}
