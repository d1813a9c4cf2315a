package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tus/tusd/v2/pkg/filestore"
	tusd "github.com/tus/tusd/v2/pkg/handler"
	"github.com/tus/tusd/v2/pkg/memorylocker"
	"golang.org/x/exp/slog"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// uploads is a tus server.
type uploads struct {
	dir     string
	keys    string // settings
	created atomic.Int64
	read    atomic.Int64 // bytes of bodies
	odd     atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newUploads(t *testing.T) *uploads {
	t.Helper()
	u := &uploads{dir: t.TempDir()}
	composer := tusd.NewStoreComposer()
	filestore.New(u.dir).UseIn(composer)
	memorylocker.New().UseIn(composer)
	h, err := tusd.NewHandler(tusd.Config{BasePath: "/files/", StoreComposer: composer, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	tus := http.StripPrefix("/files/", h)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			u.created.Add(1)
		}
		r.Body = &counted{r.Body, &u.read}
		if odd := u.odd.Load(); odd == nil || !(*odd)(w, r) {
			tus.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	u.keys = fmt.Sprintf("to = %q\nca_file = %q\nretry_most = \"1s\"\n", "tus+"+server.URL+"/files/", writeCert(t, server.Certificate()))
	return u
}

func (u *uploads) be(odd func(http.ResponseWriter, *http.Request) bool) { u.odd.Store(&odd) }

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// finished reads the uploads that are whole, by their names.
func (u *uploads) finished(t *testing.T) map[string][]byte {
	t.Helper()
	infos, err := filepath.Glob(u.dir + "/*.info")
	if err != nil {
		t.Fatal(err)
	}
	done := map[string][]byte{}
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var info tusd.FileInfo
		if err := json.Unmarshal(text, &info); err != nil {
			t.Fatal(err)
		}
		bytes, err := os.ReadFile(strings.TrimSuffix(name, ".info"))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(bytes)) != info.Size {
			continue
		}
		if _, twice := done[info.MetaData["filename"]]; twice {
			t.Errorf("%s was uploaded twice", info.MetaData["filename"])
		}
		done[info.MetaData["filename"]] = bytes
	}
	return done
}

func (u *uploads) wantOnce(t *testing.T, sides ...*sidecar.Sidecar) {
	t.Helper()
	done := u.finished(t)
	for _, side := range sides {
		if got := hashOf(done[side.Name]); got != side.SHA256 {
			t.Errorf("the upload of %s has sha256 %s; want %s", side.Name, got, side.SHA256)
		}
		if got, err := sidecar.Decode(done[string(side.ID)+".json"]); err != nil || got.SHA256 != side.SHA256 || got.Upload != nil {
			t.Errorf("the upload of %s's sidecar = %+v, %v", side.Name, got, err)
		}
	}
	if len(done) != 2*len(sides) {
		t.Errorf("%d uploads are whole; want %d files and their sidecars", len(done), len(sides))
	}
}

func noise(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestTus(t *testing.T) {
	t.Parallel()
	for _, receipt := range []string{"status", "head", "content"} {
		t.Run(receipt, func(t *testing.T) {
			t.Parallel()
			u := newUploads(t)
			b := boxtest.New(t, fleet(u.keys+fmt.Sprintf("receipt = %q", receipt)))
			s := newShop(t, b.Dir+"/store")
			sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n"), s.put(".mp4", noise(2*tusChunk+1)), s.put(".jpg", "")}
			p := b.Start("uploader", "send")
			s.wait(spool.Sent, 3)
			p.Stop()
			u.wantOnce(t, sides...)
			s.wantSent(sides...)
			if tag := s.sidecarIn(spool.Sent, sides[0].ID).Receipt.Tag; !strings.Contains(tag, "/files/") {
				t.Errorf("the receipt's tag is %q; want the upload's address", tag)
			}
		})
	}
}

// Killed again and again, and cut off in between, an upload goes on where it
// was: what is sent twice is little, and nothing is there twice.
func TestTusGoesOn(t *testing.T) {
	t.Parallel()
	u := newUploads(t)
	const size = 4 << 20
	b := boxtest.New(t, fleet(u.keys+`limit = "8MB"`))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", noise(size))
	for i := int64(1); i <= 3; i++ { // kills
		p := b.Start("uploader", "send")
		boxtest.Poll(t, "a part of the upload", func() bool { return u.read.Load() > i*size/8 })
		p.Kill()
	}
	var cuts atomic.Int64
	u.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && cuts.Add(1) <= 3 {
			r.Body = &short{r.Body, size / 8}
		}
		return false
	})
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	u.wantOnce(t, side)
	s.wantSent(side)
	if n := u.created.Load(); n != 2 {
		t.Errorf("%d uploads were created; want one for the file and one for its sidecar", n)
	}
}

// short ends a body early, as a connection that breaks does.
type short struct {
	io.ReadCloser
	left int
}

func (s *short) Read(p []byte) (int, error) {
	if s.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := s.ReadCloser.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// An upload that the server has forgotten begins anew.
func TestTusExpired(t *testing.T) {
	t.Parallel()
	u := newUploads(t)
	b := boxtest.New(t, fleet(u.keys+`limit = "4MB"`))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", noise(4<<20))
	p := b.Start("uploader", "send")
	boxtest.Poll(t, "a part of the upload", func() bool { return u.read.Load() > 1<<20 })
	p.Kill()
	parts, err := filepath.Glob(u.dir + "/*")
	if err != nil || len(parts) != 2 {
		t.Fatalf("the server has %v (%v); want one upload", parts, err)
	}
	for _, part := range parts {
		if err := os.Remove(part); err != nil {
			t.Fatal(err)
		}
	}
	b.Write(fleet(u.keys))
	p = b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	u.wantOnce(t, side)
	s.wantSent(side)
}

// Servers that are none, or lead elsewhere, get nothing.
func TestTusLiars(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, trouble string
		answer          func(http.ResponseWriter)
	}{
		"an address elsewhere": {http.MethodPost, "elsewhere", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://elsewhere.example.org/files/1")
			w.WriteHeader(http.StatusCreated)
		}},
		"a portal at creation": {http.MethodPost, "no tus server", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }},
		"a portal later":       {http.MethodPatch, "no tus server", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }},
		"half is taken": {http.MethodPatch, "has 1 bytes", func(w http.ResponseWriter) {
			w.Header().Set("Upload-Offset", "1")
			w.WriteHeader(http.StatusNoContent)
		}},
		"all is taken and nothing kept": {http.MethodPatch, "something else", func(w http.ResponseWriter) {
			w.Header().Set("Upload-Offset", "4")
			w.WriteHeader(http.StatusNoContent)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUploads(t)
			u.be(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == c.method {
					_, _ = io.Copy(io.Discard, r.Body)
					c.answer(w)
				}
				return r.Method == c.method
			})
			b := boxtest.New(t, fleet(u.keys))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".csv", "a,b\n")
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("a failed attempt", func(st msg.State) bool { return st.Counters["failed_attempts"] >= 1 && st.Trouble != "" })
			if !strings.Contains(st.Trouble, c.trouble) {
				t.Errorf("trouble %q; want %q", st.Trouble, c.trouble)
			}
			u.be(func(http.ResponseWriter, *http.Request) bool { return false })
			s.wait(spool.Sent, 1)
			p.Stop()
			u.wantOnce(t, side)
		})
	}
}
