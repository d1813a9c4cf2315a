package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/msg"
)

const geheim = "s3cr3t/t0k3n+=" // a token that is spelt otherwise in an address

// echoes are answers to a PUT or a POST that repeat the token.
func echoes() map[string]func(http.ResponseWriter, string) {
	return map[string]func(http.ResponseWriter, string){
		"text": func(w http.ResponseWriter, token string) { http.Error(w, "what is "+token+"?", http.StatusForbidden) },
		"end of a long text": func(w http.ResponseWriter, token string) {
			http.Error(w, strings.Repeat("x", uplink.MaxLine-6)+token, http.StatusServiceUnavailable)
		},
		"text as JSON": func(w http.ResponseWriter, token string) {
			http.Error(w, `{"got": "`+strings.ReplaceAll(token, "/", `\/`)+`"}`, http.StatusBadRequest)
		},
		"redirect": func(w http.ResponseWriter, token string) {
			w.Header().Set("Location", "/login?back="+token)
			w.WriteHeader(http.StatusFound)
		},
		"escaped redirect": func(w http.ResponseWriter, token string) {
			w.Header().Set("Location", "https://elsewhere.example.org/?back="+url.QueryEscape(token))
			w.WriteHeader(http.StatusFound)
		},
		"redirect that is no address": func(w http.ResponseWriter, token string) {
			w.Header().Set("Location", "://"+token)
			w.WriteHeader(http.StatusFound)
		},
		"tag": func(w http.ResponseWriter, token string) {
			w.Header().Set("ETag", `"`+token+`"`)
			w.WriteHeader(http.StatusCreated)
		},
		"location": func(w http.ResponseWriter, token string) {
			w.Header().Set("Location", "/box/"+token)
			w.WriteHeader(http.StatusCreated)
		},
		"answer that is none": func(w http.ResponseWriter, token string) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 "+token+" what\r\n\r\n") // who asked may be gone
			_ = conn.Close()
		},
	}
}

// A receiver that repeats the token gets it into no log, state or sidecar.
func TestTokenIsNeverRepeated(t *testing.T) {
	t.Parallel()
	for name, echo := range echoes() {
		for _, scheme := range []string{"", "tus+"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				t.Parallel()
				server := newShelf(t)
				server.be(func(w http.ResponseWriter, r *http.Request) bool {
					if token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); r.Method == http.MethodPut || r.Method == http.MethodPost {
						_, _ = io.Copy(io.Discard, r.Body) // what matters is the answer
						echo(w, token)
						return true
					}
					return false
				})
				token := secretFile(t, t.TempDir(), geheim, 0o600)
				b := boxtest.New(t, fleet(fmt.Sprintf("to = %q\nca_file = %q\nretry_most = \"1s\"\nreceipt = \"status\"\nattempts = 1\ntoken_file = %q",
					scheme+server.URL+"/box", server.ca, token)))
				s := newShop(t, b.Dir+"/store")
				s.put(".csv", "a,b\n")
				states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
				p := b.Start("uploader", "send")
				st := states.State("an attempt", func(st msg.State) bool {
					return st.Trouble != "" || st.Counters["sent_files"]+st.Counters["rejected_files"] > 0
				})
				p.Stop()
				if strings.Contains(st.Trouble+st.Status, geheim) || strings.Contains(st.Trouble+st.Status, geheim[:6]) {
					t.Errorf("trouble %q, status %q; want no part of the token", st.Trouble, st.Status)
				}
				for _, spelt := range []string{geheim, url.QueryEscape(geheim), url.PathEscape(geheim), geheim[:6]} {
					wantNoSecret(t, b, p, spelt)
				}
			})
		}
	}
}

// The same of the keys of S3.
func TestKeysAreNeverRepeated(t *testing.T) {
	t.Parallel()
	o := newObjects(t)
	o.be(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		_, _ = io.Copy(io.Discard, r.Body) // what matters is the answer
		w.Header().Set("ETag", "geheim-geheim")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<Error><Code>Bad</Code><Message>not geheim-geheim</Message></Error>")
		return true
	})
	b := boxtest.New(t, fleet(o.keys+"attempts = 1"))
	s := newShop(t, b.Dir+"/store")
	side := s.put(".csv", "a,b\n")
	p := b.Start("uploader", "send")
	s.wait(spool.Rejected, 1)
	p.Stop()
	wantNoSecret(t, b, p, "geheim-geheim")
	history := s.sidecarIn(spool.Rejected, side.ID).History
	if reason := history[len(history)-1].Reason; !strings.Contains(reason, "400") {
		t.Errorf("reason %q; want the status at least", reason)
	}
}
