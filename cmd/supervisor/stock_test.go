package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/topology"
)

func TestFilesAreCounted(t *testing.T) {
	dir := t.TempDir()
	n := topology.Node{CacheDir: filepath.Join(dir, "cache"), StoreDir: filepath.Join(dir, "store")}
	if diff := cmp.Diff(Files{Cache: map[spool.State]Stock{}, Store: map[spool.State]Stock{}}, countFiles(n)); diff != "" {
		t.Errorf("countFiles() without folders (-want +got):\n%s", diff)
	}
	for _, name := range []string{"cache/born/a_20260517T094057Z_000283baec0033c3-000001.jpg", "cache/born/a_20260517T094057Z_000283baec0033c3-000001.json",
		"cache/born/a_20260517T094057Z_000283baec0033c3-000002.jpg", "store/work/a_20260517T094057Z_000283baec0033c3-000003.csv",
		"store/sent/a_20260517T094057Z_000283baec0033c3-000004.jpg", "store/sent/notes.txt", "store/logs/a.log"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Files{Cache: map[spool.State]Stock{spool.Born: {2, 10}}, Store: map[spool.State]Stock{spool.Work: {1, 5}, spool.Sent: {1, 5}}}
	if diff := cmp.Diff(want, countFiles(n)); diff != "" {
		t.Errorf("countFiles() (-want +got):\n%s", diff)
	}
	n.StoreMount = filepath.Join(dir, "store")
	if got := countFiles(n); len(got.Store) > 0 || len(got.Cache) != 1 || !strings.Contains(got.Trouble, "not mounted") {
		t.Errorf("countFiles() without the store's disk = %+v; want the cache's, and why there are no others", got)
	}
}
