package boxtest

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/lockfile"
)

// PinAll is a reader without manners: it pins every slot of a ring, such as
// "porch.video", as fast as they are published, under a reader's number that it
// holds. stop ends that.
func PinAll(t testing.TB, shmDir, ring string, slots int) (stop func()) {
	t.Helper()
	const reader, records, recordBytes = 30, 4096, 64 // offsets: see pkg/shm
	rings, err := filepath.Glob(filepath.Join(shmDir, ring+".*.ctl"))
	if err != nil || len(rings) != 1 {
		t.Fatalf("rings %v, %v; want one", rings, err)
	}
	ctl, err := os.OpenFile(rings[0], os.O_RDWR, 0)
	if err == nil {
		err = lockfile.Try(ctl, 1+reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	pin := func(slot int) error {
		var word [8]byte
		at := int64(records + slot*recordBytes)
		if _, err := ctl.ReadAt(word[:], at); err != nil {
			return err
		}
		old := binary.LittleEndian.Uint64(word[:])
		if old>>31&1 != 0 { // being written
			return nil
		}
		binary.LittleEndian.PutUint64(word[:], old|1<<reader)
		_, err := ctl.WriteAt(word[:], at)
		return err
	}
	var failed error // the last one
	pinAll := func() {
		for slot := range slots {
			if err := pin(slot); err != nil {
				failed = err
			}
		}
	}
	pinAll()
	done, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Millisecond) // far more often than messages come
		defer tick.Stop()
		for {
			select {
			case <-done:
				stopped <- failed
				return
			case <-tick.C:
				pinAll()
			}
		}
	}()
	return func() {
		t.Helper()
		close(done)
		if err := errors.Join(<-stopped, ctl.Close()); err != nil { // and with it the lock: the writer reclaims the pins
			t.Error(err)
		}
	}
}
