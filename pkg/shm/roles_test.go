package shm

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// playReader is a reader led by commands: folder, ring, name, pins.
func playReader(args []string) error {
	dir, err := OpenDir(args[0])
	if err != nil {
		return err
	}
	r, err := OpenReader(dir, Name(args[1]), args[2], number(args[3]))
	if err != nil {
		return err
	}
	fmt.Println("ready", r.number, r.epoch)
	var held []Lease
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "latest", "at":
			take := r.Latest
			if verb == "at" {
				take = func() (Lease, error) { return r.At(uint64(number(arg))) }
			}
			l, err := take()
			if err != nil {
				fmt.Println("error:", err)
				continue
			}
			held = append(held, l)
			slot, _ := l.Slot()
			fmt.Println("message", l.Seq(), "slot", slot)
		case "check":
			torn := 0
			for _, l := range held {
				if !whole(l.Bytes(), l.Seq()) {
					torn++
				}
			}
			fmt.Println("held", len(held), "torn", torn)
		case "release":
			for _, l := range held {
				l.Release()
			}
			held = nil
			fmt.Println("released")
		}
	}
	return nil
}

// playWriter is a writer led by commands: folder, ring, epoch, slots, bytes of
// a slot, rings to keep.
func playWriter(args []string) error {
	dir, err := OpenDir(args[0])
	if err != nil {
		return err
	}
	w, err := Create(dir, Name(args[1]), Epoch(number(args[2])),
		Options{Slots: number(args[3]), SlotBytes: number(args[4]), KeepDead: number(args[5])})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "publish":
			for range number(arg) {
				s, err := w.Claim()
				if err != nil {
					return err
				}
				fill(s.Bytes(), w.Published())
				s.Publish(len(s.Bytes()), Info{})
			}
			fmt.Println("published", w.Published())
		case "half":
			s, err := w.Claim()
			if err != nil {
				return err
			}
			fill(s.Bytes()[:len(s.Bytes())/2], w.Published())
			fmt.Println("half")
		case "retire":
			if err := w.Retire(); err != nil {
				return err
			}
			fmt.Println("retired")
		}
	}
	return nil
}

// playStill does the work of a frame, thousands of times, on a thread that may
// make no system call but read, write and exit (seccomp(2), strict mode): the
// kernel ends a thread that tries. With "guilty" it makes one.
func playStill(args []string) error {
	dir, err := OpenDir(args[0])
	if err != nil {
		return err
	}
	w, err := Create(dir, ring, 1, Options{Slots: 8, SlotBytes: 256})
	if err != nil {
		return err
	}
	r, err := OpenReader(dir, ring, "still", 2)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(4)
	debug.SetGCPercent(-1)
	var thread, state atomic.Int64 // state: 1 confined, 2 done, 3 no such mode
	go func() {
		runtime.LockOSThread()
		passFrames(w, r, 1000)
		thread.Store(int64(unix.Gettid()))
		runtime.Gosched()
		// Raw: the scheduler must not be told, it would make calls of its own.
		_, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_STRICT, 0, 0, 0, 0)
		if errno != 0 {
			state.Store(3)
			return
		}
		state.Store(1)
		passFrames(w, r, 3000)
		if args[1] == "guilty" {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		}
		state.Store(2)
		for { //nolint:staticcheck // spins: a system call here would prove nothing
		}
	}()
	for {
		switch s := state.Load(); {
		case s == 3:
			fmt.Println("unsupported")
		case s == 2:
			fmt.Println("no system call")
		case s == 1 && ended(thread.Load()) && state.Load() == 1:
			fmt.Println("a system call")
		default:
			time.Sleep(time.Millisecond)
			continue
		}
		return nil
	}
}

// ended says whether a thread of this process is gone: a zombie, if it is the first.
func ended(thread int64) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", thread))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// passFrames publishes, and leases by latest and by number.
func passFrames(w *Writer, r *Reader, n int) {
	for range n {
		s, err := w.Claim()
		if err != nil {
			panic(err)
		}
		s.Publish(len(s.Bytes()), Info{Boot: 1})
		newest, err := r.Latest()
		if err != nil {
			panic(err)
		}
		same, err := r.At(newest.Seq())
		if err != nil || len(same.Bytes()) != len(newest.Bytes()) {
			panic(err)
		}
		same.Release()
		newest.Release()
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
