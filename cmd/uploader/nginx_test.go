package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// A plain web server with WebDAV is a receiver: it tells a length, and no sha256.
func TestNginx(t *testing.T) {
	t.Parallel()
	for _, receipt := range []string{"head", "content"} {
		t.Run(receipt, func(t *testing.T) {
			t.Parallel()
			server := boxtest.StartNginx(t, "3m")
			b := boxtest.New(t, fleet(server.Keys+fmt.Sprintf("retry_most = \"1s\"\nreceipt = %q\nattempts = 2", receipt)))
			s := newShop(t, b.Dir+"/store")
			sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n"), s.put(".mp4", noise(2<<20)), s.put(".jpg", "")}
			large := s.put(".mp4", noise(4<<20)) // more than it takes
			p := b.Start("uploader", "send")
			s.wait(spool.Sent, 3)
			s.wait(spool.Rejected, 1)
			p.Stop()
			for _, side := range sides {
				if text, err := os.ReadFile(filepath.Join(server.Folder, side.Name)); err != nil || hashOf(text) != side.SHA256 {
					t.Errorf("nginx has %d bytes of %s (%v); want it whole", len(text), side.Name, err)
				}
				if _, err := os.Stat(filepath.Join(server.Folder, string(side.ID)+".json")); err != nil {
					t.Error(err)
				}
			}
			if list, err := os.ReadDir(server.Folder); err != nil || len(list) != 6 {
				t.Errorf("nginx has %d files (%v); want three and their sidecars", len(list), err)
			}
			got := s.sidecarIn(spool.Rejected, large.ID)
			if reason := got.History[len(got.History)-1].Reason; !strings.Contains(reason, "413") {
				t.Errorf("reason %q; want the 413 of a file that is too large", reason)
			}
			wantNoSecret(t, b, p, server.Token)
		})
	}
}

// The documented nginx lets in nobody without the token, and a box into no folder
// but its own; its pages are not repeated.
func TestNginxShutsOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		folder, token string
		trouble       string
	}{
		"another token":  {"/airpi-01", "another", "401 Unauthorized (look at token_file"},
		"another folder": {"/airpi-02", "", "403 Forbidden (look at token_file"},
		"no folder":      {"", "", "404 Not Found (look at the address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := boxtest.StartNginx(t, "3m")
			keys := strings.Replace(server.Keys, "/airpi-01\"", c.folder+"\"", 1)
			if c.token != "" {
				keys = strings.Replace(keys, "token_file = ", fmt.Sprintf("token_file = %q # ", secretFile(t, t.TempDir(), c.token, 0o600)), 1)
			}
			b := boxtest.New(t, fleet(keys))
			s := newShop(t, b.Dir+"/store")
			s.put(".csv", "a,b\n")
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			st := states.State("an alarm", func(st msg.State) bool { return st.Trouble != "" })
			p.Stop()
			if !strings.Contains(st.Trouble, c.trouble) || strings.Contains(st.Trouble, "<html>") {
				t.Errorf("trouble %q; want %q, and no page", st.Trouble, c.trouble)
			}
		})
	}
}

// docs/RECEIVERS.md shows what is sent, and settings that are some.
func TestReceiversDocument(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	heads := make(chan []string, 2)
	server.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			names := []string{"Host", "Content-Length"}
			for name := range r.Header {
				names = append(names, name)
			}
			slices.Sort(names)
			heads <- slices.Compact(names)
		}
		return false
	})
	token := secretFile(t, t.TempDir(), "token", 0o600)
	b := boxtest.New(t, fleet(server.keys(fmt.Sprintf("token_file = %q", token))))
	s := newShop(t, b.Dir+"/store")
	s.put(".mp4", noise(bigBody))
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	var told []string
	for i, line := range strings.Split(strings.TrimSpace(boxtest.Documented(t, "RECEIVERS.md", "http")[0]), "\n") {
		if i > 0 {
			name, _, _ := strings.Cut(line, ":")
			told = append(told, name)
		}
	}
	slices.Sort(told)
	if diff := cmp.Diff(told, <-heads); diff != "" {
		t.Errorf("headers (-documented +sent):\n%s", diff)
	}
	for _, text := range boxtest.Documented(t, "RECEIVERS.md", "toml") {
		top := struct{ Worker map[string]Config }{}
		meta, err := toml.Decode(text, &top)
		for _, key := range meta.Undecoded() {
			if last := key[len(key)-1]; last != "program" && last != "source" {
				err = fmt.Errorf("%s is no setting", key)
			}
		}
		if err != nil || top.Worker["send"].To.scheme == "" {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}
