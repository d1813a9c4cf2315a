package ffmpeg

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// Parts of every length arrive in order, whole, through a pipe that is smaller
// than they are.
func TestFeed(t *testing.T) {
	p := start(t, Command{Argv: []string{"cat"}, Stdin: true, Stdout: true, Small: 5000})
	var want []byte
	var parts [][]byte
	for i := range 3000 {
		part := bytes.Repeat([]byte{byte(i)}, i%700)
		parts, want = append(parts, part), append(want, part...)
	}
	read := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(p.Stdout) // what is missing shows
		read <- got
	}()
	if err := p.Feed(parts, 10*time.Second, func() {}); err != nil {
		t.Fatalf("Feed = %v; want nil", err)
	}
	if err := p.EndInput(); err != nil {
		t.Fatal(err)
	}
	if got := <-read; !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived that are not the %d that were fed", len(got), len(want))
	}
	if err := p.Wait(time.Second); err != nil {
		t.Errorf("Wait = %v; want nil", err)
	}
}

func TestFeedOneThatHangs(t *testing.T) {
	p := start(t, Command{Argv: []string{"sleep", "1000"}, Stdin: true})
	alive := 0
	err := p.Feed([][]byte{make([]byte, 4<<20)}, 600*time.Millisecond, func() { alive++ })
	if !errors.Is(err, os.ErrDeadlineExceeded) || alive == 0 {
		t.Errorf("Feed = %v, alive was called %d times; want %v and some", err, alive, os.ErrDeadlineExceeded)
	}
}

func TestFeedOneThatIsGone(t *testing.T) {
	p := start(t, Command{Argv: []string{"true"}, Stdin: true})
	<-p.done
	if err := p.Feed([][]byte{{1}}, time.Second, func() {}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Feed = %v; want %v", err, syscall.EPIPE)
	}
}
