package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// TestMain lets the test binary be uploader.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"uploader": main})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// fleet is a topology of one maker of files and one uploader.
func fleet(keys string) string {
	return "[sensor.maker]\nprogram = \"maker\"\n[sensor.maker.stream.files]\n[worker.send]\nprogram = \"uploader\"\nsource = \"maker\"\n" + keys + "\n"
}

// shop makes complete files in a box's store, as the workers before the
// uploader do.
type shop struct {
	t     *testing.T
	spool *spool.Spool
	n     uint64
	edit  func(*sidecar.Sidecar) // of the next files
}

func newShop(t *testing.T, store string) *shop {
	t.Helper()
	s, err := spool.Open(store, spool.Work, spool.Ready)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &shop{t: t, spool: s}
}

// mediaTypes are those of the extensions that the tests use.
func mediaTypes() map[string]string {
	return map[string]string{".csv": "text/csv", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".jsonl": sidecar.LossesMedia, ".bin": "application/octet-stream"}
}

// put makes the next file; each is a second younger than the one before.
func (s *shop) put(ext, text string) *sidecar.Sidecar {
	s.t.Helper()
	s.n++
	at := time.Date(2026, 5, 17, 9, 0, int(s.n), 0, time.UTC)
	moment := sidecar.Moment{Time: msg.Time{Time: at}, BootNS: int64(s.n) * 1e9, BootID: "another-boot", Synced: true, Epoch: 1, Seq: msg.Seq(s.n)}
	id := sidecar.NewID("maker", at, 1, s.n)
	side := &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ext, Media: mediaTypes()[ext], Node: "box", Worker: "maker",
		Program: "maker", Source: "reading/air/environment", Start: moment, End: moment, Items: 1}
	side.Add(sidecar.Event{State: "ready", Time: moment.Time, By: "maker", Reason: "made by a test"})
	if s.edit != nil {
		s.edit(side)
	}
	f, err := s.spool.Create(side.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, s.spool.Complete(f, spool.Ready, side), f.Close()); err != nil {
		s.t.Fatal(err)
	}
	return side
}

// in lists the files of a state.
func (s *shop) in(state spool.State) (names []string) {
	s.t.Helper()
	list, err := s.spool.Entries(state)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// wait waits until a state has that many files.
func (s *shop) wait(state spool.State, n int) {
	s.t.Helper()
	boxtest.Poll(s.t, fmt.Sprintf("%d files in %s/", n, state), func() bool { return len(s.in(state)) == n })
}

// sidecarIn reads a sidecar.
func (s *shop) sidecarIn(state spool.State, id sidecar.ID) *sidecar.Sidecar {
	s.t.Helper()
	side, err := s.spool.Sidecar(state, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return side
}

// shelf is an honest receiver: an HTTP server that keeps what is put there.
type shelf struct {
	*httptest.Server
	ca string // a file with its certificate

	mu     sync.Mutex
	things map[string][]byte
	stored map[string]int // how often each was written
	asked  []string       // the requests, as "PUT name"
	// odd may answer a request in the shelf's place, and then returns true.
	odd func(http.ResponseWriter, *http.Request) bool
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{things: map[string][]byte{}, stored: map[string]int{}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	s.ca = writeCert(t, s.Certificate())
	return s
}

// keys are the settings that lead to the shelf.
func (s *shelf) keys(more string) string {
	return fmt.Sprintf("to = %q\nca_file = %q\n%s", s.URL+"/box", s.ca, more)
}

// ServeHTTP keeps what is put, and shows it.
func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+name)
	odd := s.odd
	s.mu.Unlock()
	if odd != nil && odd(w, r) {
		return
	}
	switch r.Method {
	case http.MethodPut:
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut off: nothing is kept
		}
		w.WriteHeader(s.keep(name, text, r.Header.Get("If-None-Match") == "*"))
	case http.MethodHead, http.MethodGet:
		s.mu.Lock()
		text, ok := s.things[name]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(text) // who asked may be gone
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s *shelf) keep(name string, text []byte, once bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.things[name]; there && once {
		return http.StatusPreconditionFailed
	}
	s.things[name] = text
	s.stored[name]++
	return http.StatusCreated
}

// be changes how it answers.
func (s *shelf) be(odd func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.odd = odd
}

// requests are those so far whose method is that.
func (s *shelf) requests(method string) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if name, ok := strings.CutPrefix(a, method+" "); ok {
			list = append(list, name)
		}
	}
	return list
}

// wantOnce wants the files and their sidecars there, each written once, and
// nothing else.
func (s *shelf) wantOnce(t *testing.T, sides ...*sidecar.Sidecar) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, side := range sides {
		if sum := sha256.Sum256(s.things[side.Name]); hex.EncodeToString(sum[:]) != side.SHA256 || s.stored[side.Name] != 1 {
			t.Errorf("the receiver has %d bytes of %s, written %d times; want %d, once", len(s.things[side.Name]), side.Name, s.stored[side.Name], side.Bytes)
		}
		if got, err := sidecar.Decode(s.things[string(side.ID)+".json"]); err != nil || got.SHA256 != side.SHA256 || got.Upload != nil || got.Receipt != nil {
			t.Errorf("the receiver has the sidecar %+v of %s (%v); want it as it was before the upload", got, side.Name, err)
		}
	}
	if len(s.things) != 2*len(sides) {
		t.Errorf("the receiver has %d things; want %d files and their sidecars", len(s.things), len(sides))
	}
}

// wantSent wants the receipts of what is in sent/, and nothing elsewhere.
func (s *shop) wantSent(sides ...*sidecar.Sidecar) {
	s.t.Helper()
	for _, want := range sides {
		side := s.sidecarIn(spool.Sent, want.ID)
		r := side.Receipt
		if r == nil || r.Proof == "" || r.Digest != "" && r.Digest != want.SHA256 || r.Key != want.Name || side.State() != "sent" || side.Upload != nil {
			s.t.Errorf("sidecar of %s in sent/: receipt %+v, state %q; want its receipt", want.Name, r, side.State())
		}
	}
	if got := s.in(spool.Sent); len(got) != len(sides) {
		s.t.Errorf("%d files in sent/; want %d", len(got), len(sides))
	}
	for _, state := range []spool.State{spool.Ready, spool.Rejected, spool.Quarantine, spool.Work} {
		if got := s.in(state); len(got) > 0 {
			s.t.Errorf("%v in %s/; want nothing", got, state)
		}
	}
}
