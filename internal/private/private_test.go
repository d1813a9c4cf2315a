package private

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenMakesAClosedFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	root, err := Open(path, "shm_dir", 0o077)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("Open made mode %v, %v; want 0700", st.Mode(), err)
	}
}

func TestOpenRefusesWhatOthersMayEnter(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, "shm_dir", 0o077)
	if err == nil || !strings.Contains(err.Error(), "chmod 700 "+path) {
		t.Errorf("Open of a folder of mode 0750 = %v; want what to do", err)
	}
	root, err := Open(path, "run_dir", 0o022)
	if err != nil {
		t.Fatalf("Open of a folder that others may read = %v; want it where only writing is forbidden", err)
	}
	root.Close()
}

func TestOpenSaysWhoseItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a folder away needs root")
	}
	path := t.TempDir()
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, "shm_dir", 0o077)
	for _, want := range []string{"nobody", "root", "shm_dir", "chown"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open of another user's folder = %v; want %q in it", err, want)
		}
	}
}
