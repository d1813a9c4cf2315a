package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// receiver takes files by PUT and shows them by HEAD. In a storm it fails: it
// is busy, cuts connections, and keeps things without saying so.
type receiver struct {
	t      *testing.T
	server *httptest.Server

	mu      sync.Mutex
	random  *rand.Rand
	stormy  bool
	objects map[string]object
	stored  map[string]int // how often an object was made
	puts    map[string]int // attempts
	faults  map[string]int // by what was done
}

// object is what it has under a name.
type object struct {
	bytes int
	sum   [sha256.Size]byte
	text  []byte // of sidecars
}

func newReceiver(t *testing.T, random *rand.Rand) *receiver {
	r := &receiver{t: t, random: random, stormy: true, objects: map[string]object{}, stored: map[string]int{}, puts: map[string]int{},
		faults: map[string]int{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// calm ends the storm.
func (r *receiver) calm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stormy = false
}

const faultKinds = 5

// kinds is how many kinds of faults there were.
func (r *receiver) kinds() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.faults)
}

// fault is what goes wrong with the next request; "" is nothing.
func (r *receiver) fault() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := [faultKinds]string{"503", "429", "cut before", "cut within", "reply lost"}
	if n := r.random.IntN(20 * len(all)); r.stormy && n < len(all) {
		r.faults[all[n]]++
		return all[n]
	}
	return ""
}

// cut ends a request without an answer.
func cut() { panic(http.ErrAbortHandler) }

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	fault := r.fault()
	switch fault {
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	case "cut before":
		cut()
	case "cut within":
		io.CopyN(io.Discard, req.Body, 5000)
		cut()
	}
	name := strings.TrimPrefix(req.URL.Path, "/box/")
	if req.Method == http.MethodHead {
		r.show(w, name)
		return
	}
	status := r.put(name, req)
	if fault == "reply lost" {
		cut()
	}
	w.WriteHeader(status)
}

func (r *receiver) show(w http.ResponseWriter, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, there := r.objects[name]
	if !there {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(o.bytes))
}

// put stores a whole body under its name, and says with which status.
func (r *receiver) put(name string, req *http.Request) int {
	text, err := io.ReadAll(req.Body)
	if err != nil {
		return http.StatusBadRequest // nobody hears it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puts[name]++
	o := object{bytes: len(text), sum: sha256.Sum256(text)}
	if want := "sha-256=:" + base64.StdEncoding.EncodeToString(o.sum[:]) + ":"; req.Header.Get("Content-Digest") != want {
		r.t.Errorf("%s came with the digest %s; its %d bytes have %s", name, req.Header.Get("Content-Digest"), len(text), want)
	}
	old, there := r.objects[name]
	if isNote := strings.HasSuffix(name, ".json"); isNote {
		o.text = text
	} else if there && old.sum != o.sum {
		r.t.Errorf("%s was sent with sha256 %x, and again with %x", name, old.sum, o.sum)
	}
	if there && req.Header.Get("If-None-Match") == "*" {
		return http.StatusPreconditionFailed
	}
	r.objects[name] = o
	r.stored[name]++
	return http.StatusCreated
}
