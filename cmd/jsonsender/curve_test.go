package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

func TestCurveKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "curve.key")
	receiver, err := msg.NewCurveSecret()
	if err == nil {
		receiver, err = msg.CurvePublic(receiver)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := "to = \"zmq+tcp://example.org:5000\"\ncurve_key_file = \"" + file + "\"\ncurve_receiver_key = '" + receiver + "'"
	cfg := DefaultConfig()
	cfg.CurveKeyFile, cfg.CurveReceiver = file, receiver
	if err := configOf(t, lines); err != nil { // else curve-key could not run
		t.Fatalf("settings without the file = %v; want none", err)
	}
	if _, err := cfg.Check(t.Context()); err == nil || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "curve-key") {
		t.Errorf("Check() = _, %v; want that curve-key makes the file", err)
	}
	var printed [2]strings.Builder
	for i := range printed {
		if err := curveKey(context.Background(), worker.Asked{Streams: worker.Streams{Out: &printed[i]}}, cfg); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := cfg.curveKeys()
	if err != nil || keys.Peer != receiver {
		t.Fatalf("curveKeys() = %v, %v; want the receiver's key", keys, err)
	}
	public, err := msg.CurvePublic(keys.Secret)
	if err != nil || printed[0].String() != public+"\n" || printed[1].String() != printed[0].String() {
		t.Errorf("curve-key printed %q, then %q; want %q twice (%v)", &printed[0], &printed[1], public, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("Stat(%s) = %v, %v; want mode 0600", file, st, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := configOf(t, lines); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("settings with a key that all can read = %v; want an error", err)
	}
	if err := configOf(t, "to = \"zmq+tcp://127.0.0.1:5000\"\ncurve_receiver_key = \"x\""); err == nil || !strings.Contains(err.Error(), "go together") {
		t.Errorf("settings with one of two keys = %v; want an error", err)
	}
}
