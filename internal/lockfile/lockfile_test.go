package lockfile

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestSecondHolderIsToldWho(t *testing.T) {
	root := openRoot(t)
	first, err := Acquire(root, "air.lock")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(root, "air.lock")
	var held *HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Fatalf("second Acquire() = %v; want a HeldError with pid %d", err, os.Getpid())
	}
	if !Held(root, "air.lock") {
		t.Error("Held() = false while the lock is held; want true")
	}
	if pid, held := Holder(root, "air.lock"); pid != os.Getpid() || !held {
		t.Errorf("Holder() = %d, %v; want %d, true", pid, held, os.Getpid())
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if Held(root, "air.lock") {
		t.Error("Held() = true after Release; want false")
	}
	if _, err := root.Stat("air.lock"); !os.IsNotExist(err) {
		t.Errorf("Stat after Release = %v; want no file", err)
	}
}

// Removing the file on release must never let two processes hold the name.
func TestOneHolderWhileFilesComeAndGo(t *testing.T) {
	root := openRoot(t)
	var inside, taken atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 300 {
				lock, err := Acquire(root, "one.lock")
				if err != nil {
					continue
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders at once; want 1", n)
				}
				taken.Add(1)
				inside.Add(-1)
				lock.Release()
			}
		})
	}
	group.Wait()
	if taken.Load() == 0 {
		t.Error("nobody ever held the lock")
	}
}
