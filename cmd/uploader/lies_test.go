package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

func reprDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// swallow reads a request's body and says so.
func swallow(w http.ResponseWriter, r *http.Request, status int) {
	_, _ = io.Copy(io.Discard, r.Body) // what matters is what is kept
	w.WriteHeader(status)
}

// liars are receivers that do not have what they say; receipt is the weakest
// proof that finds them out.
func liars() map[string]struct {
	receipt Proof
	trouble string
	answer  func(http.ResponseWriter, *http.Request)
} {
	type liar = struct {
		receipt Proof
		trouble string
		answer  func(http.ResponseWriter, *http.Request)
	}
	portal := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>Welcome to the café. Please log in.</html>")
	}
	return map[string]liar{
		"200 with the sha256 of something else": {ByStatus, "something else", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Repr-Digest", reprDigest("something else"))
			swallow(w, r, http.StatusOK)
		}},
		"200 with another sha256 in JSON": {ByStatus, "something else", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, `{"sha256": "%064x"}`, 1)
		}},
		"200 before the body has arrived": {ByStatus, "", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusOK)
		}},
		"a captive portal": {ByHead, "something else", portal},
		"201 and nothing kept": {ByHead, "no proof", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				swallow(w, r, http.StatusCreated)
				return
			}
			http.NotFound(w, r)
		}},
		"a redirect elsewhere": {ByStatus, "elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.org/", http.StatusTemporaryRedirect)
		}},
		"the digest of its own answer": {ByDigest, "no sha256", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Length", fmt.Sprint(1<<20))
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Digest", reprDigest("ok"))
			_, _ = io.WriteString(w, "ok")
		}},
		"the right length and other bytes": {ByContent, "something else", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				swallow(w, r, http.StatusCreated)
				return
			}
			_, _ = w.Write(make([]byte, 1<<20))
		}},
	}
}

// No receiver that lies gets a file out of ready/; when it becomes honest, it
// gets it, once.
func TestLiarsAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, liar := range liars() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			var lies atomic.Int64
			server.be(func(w http.ResponseWriter, r *http.Request) bool {
				lies.Add(1)
				liar.answer(w, r)
				return true
			})
			b := boxtest.New(t, fleet(server.keys(fmt.Sprintf("retry_most = \"1s\"\nreceipt = %q", liar.receipt))))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".mp4", strings.Repeat("x", 1<<20))
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("three failed attempts", func(st msg.State) bool { return st.Counters["failed_attempts"] >= 3 })
			if !strings.Contains(st.Trouble, liar.trouble) || st.Counters["sent_files"] > 0 || len(s.in(spool.Ready)) != 1 {
				t.Errorf("trouble %q, %d files sent; want %q and none", st.Trouble, st.Counters["sent_files"], liar.trouble)
			}
			if liar.receipt != ByStatus && liar.receipt != ByHead {
				b.Write(fleet(server.keys("retry_most = \"1s\""))) // the honest one tells no digest
				p.Stop()
				p = b.Start("uploader", "send")
			}
			server.be(nil)
			s.wait(spool.Sent, 1)
			p.Stop()
			server.wantOnce(t, side)
			s.wantSent(side)
		})
	}
}

// Each proof is had from a receiver that gives it.
func TestProofs(t *testing.T) {
	t.Parallel()
	digest := func(w http.ResponseWriter, s *shelf, name string) {
		w.Header().Set("Repr-Digest", reprDigest(string(s.things[name])))
	}
	for _, c := range []struct {
		receipt, how string
		want         sidecar.Proof
		told, heads  bool
	}{
		{"status", "", sidecar.ByStatus, false, false},
		{"status", "PUT", sidecar.ByDigest, true, false},
		{"head", "", sidecar.ByHead, false, true},
		{"head", "PUT", sidecar.ByDigest, true, false},
		{"digest", "PUT", sidecar.ByDigest, true, false},
		{"digest", "HEAD", sidecar.ByDigest, true, true},
		{"content", "", sidecar.ByContent, false, false},
		{"content", "PUT", sidecar.ByContent, true, false},
	} {
		t.Run(c.receipt+" "+c.how, func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			server.be(func(w http.ResponseWriter, r *http.Request) bool {
				name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				switch {
				case r.Method != c.how:
					return false
				case r.Method == http.MethodPut:
					text, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					status := server.keep(name, text, true)
					digest(w, server, name)
					w.WriteHeader(status)
					return true
				}
				digest(w, server, name)
				return false
			})
			b := boxtest.New(t, fleet(server.keys("receipt = \""+c.receipt+"\"")))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".csv", "a,b\n1,2\n")
			p := b.Start("uploader", "send")
			s.wait(spool.Sent, 1)
			p.Stop()
			server.wantOnce(t, side)
			got := s.sidecarIn(spool.Sent, side.ID)
			if reason := got.History[len(got.History)-1].Reason; !strings.HasSuffix(reason, c.want.Words()) {
				t.Errorf("reason = %q; want it to end in %q", reason, c.want.Words())
			}
			if r := got.Receipt; r.Proof != c.want || (r.Digest != "") != c.told {
				t.Errorf("receipt %+v; want the proof %s, and a digest only if it was told: %v", r, c.want, c.told)
			}
			if heads := len(server.requests(http.MethodHead)); heads > 0 != c.heads {
				t.Errorf("%d HEAD requests; want some: %v", heads, c.heads)
			}
		})
	}
}

// The answer to the first PUT is lost after the body has arrived: the next
// attempt finds the file there.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	var lost atomic.Int64
	server.be(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || lost.Add(1) > 1 {
			return false
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		server.keep(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], text, true)
		panic(http.ErrAbortHandler)
	})
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", "frames")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, side)
	if r := s.sidecarIn(spool.Sent, side.ID).Receipt; r.Status != http.StatusPreconditionFailed {
		t.Errorf("receipt %+v; want the status 412 of a file that was there", r)
	}
	s.wantSent(side)
}

// It is there already, and the line breaks while that is tested: nothing is
// refused by that, however often.
func TestFlakyLineIsNoRefusal(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("attempts = 1\nretry_most = \"1s\"")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", "frames")
	server.keep(side.Name, []byte("frames"), true)
	var heads atomic.Int64
	server.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && heads.Add(1) <= 3 {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, side)
	s.wantSent(side)
}

// What already has the name there and is something else is never taken for ours.
func TestNameTakenBySomethingElse(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("attempts = 2\nretry_most = \"1s\"")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", "frames")
	server.keep(side.Name, []byte("not these"), true)
	p := b.Start("uploader", "send")
	s.wait(spool.Rejected, 1)
	p.Stop()
	got := s.sidecarIn(spool.Rejected, side.ID)
	if got.Receipt != nil || got.State() != "rejected" || got.Upload == nil || got.Upload.Attempts != 2 ||
		!strings.Contains(got.History[len(got.History)-1].Reason, "something else") {
		t.Errorf("sidecar = %+v; want it rejected after 2 attempts, with the reason", got)
	}
}

// posts is a receiver of POST that knows an Idempotency-Key again.
func TestPost(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	var lost atomic.Int64
	server.be(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got := r.Header.Get("Content-Digest"); got != reprDigest(string(text)) {
			t.Errorf("Content-Digest %q; want %q", got, reprDigest(string(text)))
		}
		key := r.Header.Get("Idempotency-Key")
		name := strings.Trim(r.Header.Get("Content-Disposition")[len("attachment; filename="):], `"`)
		if !strings.HasPrefix(name, strings.TrimSuffix(key, ".json")) || r.URL.Path != "/box" {
			t.Errorf("POST %s of %q with key %q; want /box, and a name that begins with the key", r.URL.Path, name, key)
		}
		server.keep(name, text, true)
		if lost.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, `{"id": 1, "sha256": "%x"}`, sha256.Sum256(text))
		return true
	})
	b := boxtest.New(t, fleet(server.keys("method = \"POST\"")))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".jpg", "picture")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, side)
	s.wantSent(side)
	if posts := server.requests(http.MethodPost); len(posts) != 3 {
		t.Errorf("%d POST requests; want the file twice and the sidecar once", len(posts))
	}
}

// What the headers say of a file.
func TestHeaders(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	heads := make(chan http.Header, 8)
	server.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			heads <- r.Header.Clone()
		}
		return false
	})
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	s.edit = func(side *sidecar.Sidecar) { side.Media = "image/jpeg\r\nX-Evil: 1" }
	odd := s.put(".jpg", "odd")
	s.edit = nil
	side := s.put(".csv", "a,b\n")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 2)
	p.Stop()
	close(heads)
	var got []string
	for h := range heads {
		got = append(got, strings.Join([]string{h.Get("Idempotency-Key"), h.Get("Content-Type"), h.Get("If-None-Match"), h.Get("Content-Length")}, " "))
		if h.Get("X-Evil") != "" || h.Get("Authorization") != "" || !strings.HasPrefix(h.Get("Content-Digest"), "sha-256=:") {
			t.Errorf("headers %v; want a digest, no secret, and nothing that a sidecar smuggles in", h)
		}
	}
	for _, want := range []string{string(side.ID) + " text/csv * 4", string(odd.ID) + " application/octet-stream * 3"} {
		if !slices.Contains(got, want) {
			t.Errorf("headers %q; want %q among them", got, want)
		}
	}
}
