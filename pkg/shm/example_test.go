package shm_test

import (
	"fmt"
	"log"
	"os"

	"github.com/perch-edge/perch/pkg/shm"
)

// A writer and a reader, which are two processes otherwise.
func Example() {
	path, err := os.MkdirTemp("", "rings")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	dir, err := shm.OpenDir(path)
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()

	w, err := shm.Create(dir, "porch.video", 1, shm.Options{Slots: 4, SlotBytes: 1 << 10})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	slot, err := w.Claim()
	if err != nil {
		log.Fatal(err)
	}
	n := copy(slot.Bytes(), "a very small frame")
	slot.Publish(n, shm.Info{})

	r, err := shm.OpenReader(dir, "porch.video", "viewer", 1)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	frame, err := r.Latest()
	if err != nil {
		log.Fatal(err)
	}
	defer frame.Release()
	fmt.Printf("%d: %s\n", frame.Seq(), frame.Bytes())
	// Output: 0: a very small frame
}
