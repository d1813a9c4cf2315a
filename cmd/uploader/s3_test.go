package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// objects is an S3 server whose answers a test can bend.
type objects struct {
	backend *s3mem.Backend
	url     string
	keys    string // settings
	puts    atomic.Int64
	odd     atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler) bool]
}

func newObjects(t *testing.T) *objects {
	t.Helper()
	o := &objects{backend: s3mem.New()}
	if err := o.backend.CreateBucket("box"); err != nil {
		t.Fatal(err)
	}
	s3 := gofakes3.New(o.backend).Server()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			o.puts.Add(1)
		}
		if odd := o.odd.Load(); odd == nil || !(*odd)(w, r, s3) {
			s3.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("access_key=AKIA\nsecret_key=geheim-geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.url = "s3://box/airpi-01?endpoint=" + server.URL
	o.keys = fmt.Sprintf("to = %q\nca_file = %q\ntoken_file = %q\nretry_most = \"1s\"\n", o.url, writeCert(t, server.Certificate()), keys)
	return o
}

func (o *objects) be(odd func(http.ResponseWriter, *http.Request, http.Handler) bool) {
	o.odd.Store(&odd)
}

// wantOnce wants these files with their sidecars, and nothing else.
func (o *objects) wantOnce(t *testing.T, sides ...*sidecar.Sidecar) {
	t.Helper()
	for _, side := range sides {
		if got := hashOf(o.read(t, side.Name)); got != side.SHA256 {
			t.Errorf("the bucket's %s has sha256 %s; want %s", side.Name, got, side.SHA256)
		}
		if got, err := sidecar.Decode(o.read(t, string(side.ID)+".json")); err != nil || got.SHA256 != side.SHA256 {
			t.Errorf("the bucket's sidecar of %s = %+v, %v", side.Name, got, err)
		}
	}
	list, err := o.backend.ListBucket("box", nil, gofakes3.ListBucketPage{})
	if err != nil || len(list.Contents) != 2*len(sides) {
		t.Errorf("the bucket has %d objects (%v); want %d files and their sidecars", len(list.Contents), err, len(sides))
	}
}

func (o *objects) read(t *testing.T, name string) []byte {
	t.Helper()
	obj, err := o.backend.GetObject("box", "airpi-01/"+name, nil)
	if err != nil {
		t.Errorf("GetObject(%s) = %v", name, err)
		return nil
	}
	text, err := io.ReadAll(obj.Contents)
	if err != nil {
		t.Error(err)
	}
	return text
}

func TestS3(t *testing.T) {
	t.Parallel()
	for _, receipt := range []string{"status", "head", "content"} {
		t.Run(receipt, func(t *testing.T) {
			t.Parallel()
			o := newObjects(t)
			var sums atomic.Int64
			o.be(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if r.Method == http.MethodPut && len(r.Header.Get("X-Amz-Checksum-Sha256")) == 44 {
					sums.Add(1)
				}
				return false
			})
			b := boxtest.New(t, fleet(o.keys+fmt.Sprintf("receipt = %q", receipt)))
			s := newShop(t, b.Dir+"/store")
			sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n"), s.put(".mp4", strings.Repeat("frame", 200_000)), s.put(".jpg", "")}
			p := b.Start("uploader", "send")
			s.wait(spool.Sent, 3)
			p.Stop()
			o.wantOnce(t, sides...)
			s.wantSent(sides...)
			wantNoSecret(t, b, p, "geheim-geheim")
			if n := sums.Load(); n != 6 {
				t.Errorf("%d objects came with their sha256; want all 6", n)
			}
		})
	}
}

// The answer is lost after the object has arrived: If-None-Match finds it there.
func TestS3LostAnswer(t *testing.T) {
	t.Parallel()
	o := newObjects(t)
	o.be(func(w http.ResponseWriter, r *http.Request, s3 http.Handler) bool {
		if r.Method != http.MethodPut || o.puts.Load() > 1 {
			return false
		}
		s3.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	b := boxtest.New(t, fleet(o.keys))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".mp4", "frames")
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	o.wantOnce(t, side)
	s.wantSent(side)
	if r := s.sidecarIn(spool.Sent, side.ID).Receipt; r.Status != http.StatusPreconditionFailed {
		t.Errorf("receipt %+v; want the status 412 of an object that was there", r)
	}
}

// What S3 answers decides as with any receiver.
func TestS3Refusals(t *testing.T) {
	t.Parallel()
	errorXML := func(w http.ResponseWriter, status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>about the object</Message></Error>", code)
	}
	for name, c := range map[string]struct {
		status  int
		code    string
		counter string
		trouble string
	}{
		"AccessDenied": {403, "AccessDenied", "denied_attempts", "nothing can be sent"},
		"NoSuchBucket": {404, "NoSuchBucket", "denied_attempts", "nothing can be sent"},
		"ExpiredToken": {400, "ExpiredToken", "denied_attempts", "nothing can be sent"},
		"SlowDown":     {503, "SlowDown", "failed_attempts", `503 Service Unavailable: "SlowDown", "about the object"`},
		"BadDigest":    {400, "BadDigest", "failed_attempts", "BadDigest"},
		"another sum":  {200, "", "failed_attempts", "something else"},
		"a redirect":   {307, "TemporaryRedirect", "failed_attempts", "307"},
		"a portal":     {302, "", "failed_attempts", "302"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObjects(t)
			o.be(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				_, _ = io.Copy(io.Discard, r.Body)
				if c.status == 200 {
					w.Header().Set("X-Amz-Checksum-Sha256", strings.Repeat("A", 43)+"=")
					return true
				}
				w.Header().Set("Location", "https://elsewhere.example.org/")
				errorXML(w, c.status, c.code)
				return true
			})
			b := boxtest.New(t, fleet(o.keys))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".csv", "a,b\n")
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("a failed attempt", func(st msg.State) bool { return st.Counters[c.counter] >= 1 && st.Trouble != "" })
			if !strings.Contains(st.Trouble, c.trouble) || len(s.in(spool.Ready)) != 1 {
				t.Errorf("trouble %q; want %q, and the file where it was", st.Trouble, c.trouble)
			}
			o.be(func(http.ResponseWriter, *http.Request, http.Handler) bool { return false })
			if c.counter == "failed_attempts" {
				s.wait(spool.Sent, 1)
				o.wantOnce(t, side)
			}
			p.Stop()
		})
	}
}
