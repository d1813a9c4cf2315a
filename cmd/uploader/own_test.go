package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// A move that fails at first is no trouble any more once it is done, whereto ever
// it was.
func TestTroubleOfAMoveEnds(t *testing.T) {
	t.Parallel()
	for _, state := range []spool.State{spool.Quarantine, spool.Rejected} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			server := newShelf(t)
			server.be(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusBadRequest)
				return true
			})
			b := boxtest.New(t, fleet(server.keys("attempts = 1")))
			s := newShop(t, b.Dir+"/store")
			side := s.put(".csv", "a,b\n")
			if state == spool.Quarantine {
				if err := os.WriteFile(filepath.Join(b.Dir, "store/ready", side.Name), []byte("a,c\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			inTheWay := filepath.Join(b.Dir, "store", string(state)) // of the folder
			if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
			p := b.Start("uploader", "send")
			states.State("a trouble of the move", func(st msg.State) bool { return strings.Contains(st.Trouble, string(state)) })
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			s.wait(state, 1)
			states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" })
			p.Stop()
		})
	}
}

// A disk that fails while a tus upload begins is no failure of the receiver.
func TestOwnDiskIsNotTheReceiver(t *testing.T) {
	t.Parallel()
	u := newUploads(t)
	b, faults, s := faultyShop(t, u.keys)
	side := s.put(".csv", "a,b\n")
	var broken atomic.Bool
	u.be(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && broken.CompareAndSwap(false, true) {
			faults.Fail(1, syscall.EIO, true)
		}
		return false
	})
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send")
	st := states.State("a trouble of the disk", func(st msg.State) bool { return st.Trouble != "" })
	if strings.Contains(st.Trouble, "send to") || st.Counters["failed_attempts"] > 0 {
		t.Errorf("trouble %q, %d failed attempts; want none of the receiver's", st.Trouble, st.Counters["failed_attempts"])
	}
	states.State("no trouble", func(st msg.State) bool { return st.Trouble == "" && st.Counters["sent_files"] == 1 })
	p.Stop()
	u.wantOnce(t, side)
}

// On a full disk the receipt cannot be kept: nothing is sent again and again.
func TestFullDiskSendsLittle(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b, faults, s := faultyShop(t, server.keys("retry_most = \"1s\""))
	for i := range 10 {
		s.put(".csv", fmt.Sprint(i))
	}
	server.be(func(http.ResponseWriter, *http.Request) bool {
		if !faults.Broken() {
			faults.Fail(1, syscall.ENOSPC, false)
		}
		return false
	})
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send")
	states.State("a trouble of the disk", func(st msg.State) bool { return strings.Contains(st.Trouble, "no space left") })
	begun := time.Now()
	states.State("three seconds more", func(msg.State) bool { return time.Since(begun) > 3*time.Second })
	if n := len(server.requests(http.MethodPut)); n < 2 || n > 12 { // a file and its sidecar each: two at first, one after 1 s, one after 2 s
		t.Errorf("%d PUTs in three seconds on a full disk; want a few", n)
	}
	p.Stop()
	if n := len(s.in(spool.Ready)); n != 10 {
		t.Errorf("%d files in ready/; want all 10", n)
	}
}

// What waits for a stick that was pulled out goes when it is back, however long
// the receiver's pauses may be.
func TestStickThatComesBack(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	server.be(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	b := boxtest.New(t, fleet(server.keys("retry_most = \"1s\"")))
	stick := filepath.Join(b.Dir, "stick")
	if err := os.Mkdir(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	plug := func() *sidecar.Sidecar {
		if err := faultfs.Tmpfs(stick, 4<<20); errors.Is(err, faultfs.ErrUnavailable) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = faultfs.Unmount(stick) }) // perhaps it was
		return newShop(t, stick+"/store").put(".csv", "a,b\n")
	}
	plug()
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "send")
	p := b.Start("uploader", "send", "--set", "node.store_mount="+stick, "--set", "node.store_dir="+stick+"/store")
	states.State("a failed attempt", func(st msg.State) bool { return st.Counters["failed_attempts"] >= 1 })
	if err := faultfs.Unmount(stick); err != nil {
		t.Fatal(err)
	}
	states.State("the stick missed", func(st msg.State) bool {
		return st.Status == "1 files wait for the store" && strings.Contains(st.Trouble, "not mounted")
	})
	server.be(nil)
	side := plug() // the same file, to the letter
	states.State("it sent", func(st msg.State) bool { return st.Counters["sent_files"] == 1 && st.Trouble == "" })
	p.Stop()
	server.wantOnce(t, side)
}

// unreadable is a file that cannot be read any more.
type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// A file that cannot be read is told of as one of this box, by whatever way it
// was to go.
func TestUnreadableFileIsOurs(t *testing.T) {
	t.Parallel()
	server, u, o := newShelf(t), newUploads(t), newObjects(t)
	for _, keys := range []string{server.keys(""), u.keys, o.keys} {
		var top struct{ Worker struct{ Send Config } }
		top.Worker.Send = DefaultConfig()
		if _, err := toml.Decode("[worker.send]\n"+keys, &top); err != nil {
			t.Fatal(err)
		}
		cfg := top.Worker.Send
		transport, err := newTransport(&cfg, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		to, err := newReceiver(&cfg, transport)
		if err != nil {
			t.Fatal(err)
		}
		p := &parcel{file: object{name: "a.csv", key: "a", bytes: 9, sum: hashOf([]byte("x")), from: unreadable{}, once: true},
			keep: func(sidecar.Upload) error { return nil }}
		if _, err := to.send(t.Context(), p); !errors.As(err, new(*ownError)) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: send() = %v; want an error of ours, EIO", cfg.To, err)
		}
		transport.CloseIdleConnections()
	}
}

// A fleet without a mover has its store settled all the same: a file that lost its
// sidecar is sent with a new one, a sidecar that lost its file is removed.
func TestSettlesTheStoreItself(t *testing.T) {
	t.Parallel()
	server := newShelf(t)
	b := boxtest.New(t, fleet(server.keys("")))
	s := newShop(t, b.Dir+"/store")
	bare, empty := s.put(".csv", "a,b\n"), s.put(".csv", "c,d\n")
	for _, name := range []string{string(bare.ID) + ".json", empty.Name} {
		if err := os.Remove(b.Dir + "/store/ready/" + name); err != nil {
			t.Fatal(err)
		}
	}
	p := b.Start("uploader", "send")
	s.wait(spool.Sent, 1)
	p.Stop()
	server.wantOnce(t, bare)
	side := s.sidecarIn(spool.Sent, bare.ID)
	if first := side.History[0]; side.SHA256 != bare.SHA256 || !strings.Contains(first.Reason, "recovered") && first.State != "recovered" {
		t.Errorf("sidecar of the file that had none: %s, history %+v; want that it was recovered", side.SHA256, side.History)
	}
	if _, err := os.Stat(b.Dir + "/store/ready/" + string(empty.ID) + ".json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the sidecar without a file: %v; want that it is gone", err)
	}
}
