package msg

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/perch-edge/perch/pkg/pixel"
)

// What happens to a killed publisher's messages is tested with a real process:
// the test binary starts itself again, and roleEnv says as what.
const roleEnv = "PERCH_MSG_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		fmt.Println("error:", play(role, os.Args[1], os.Args[2]))
		os.Exit(1)
	}
	os.Args = slices.Insert(os.Args, 1, "-test.parallel=8") // they wait; a -parallel that is given comes later, and wins
	goleak.VerifyTestMain(m)
}

// play publishes and then kills its own process.
func play(role, run, shm string) error {
	name := Source("air")
	if role == "camera" {
		name = "porch"
	}
	b, err := Open(Config{Node: "box", Name: name, RunDir: run, ShmDir: shm})
	if err != nil {
		return err
	}
	p, err := b.Publisher()
	if err != nil {
		return err
	}
	if role == "camera" {
		err = playCamera(b, p)
	} else {
		err = playCounter(b, p)
	}
	if err != nil {
		return err
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// playCounter sends 100 rows, and 20 more that it keeps and never sends.
func playCounter(b *Bus, p *Publisher) error {
	out, err := p.Readings("count", []string{"n"}, Retention{})
	if err != nil {
		return err
	}
	if missing := p.Gate([]string{"csv"}, 5*time.Second, nil); missing != nil {
		return fmt.Errorf("gate misses %v", missing)
	}
	nobody, err := b.bind("ipc://"+b.cfg.RunDir+"/nobody.ipc", queue)
	if err != nil {
		return err
	}
	for n := range 120 {
		if n == 100 {
			out.out.end = nobody
		}
		if _, err := out.Publish(b.Clock().Now(), []float64{float64(n)}, nil); err != nil {
			return err
		}
	}
	return nil
}

func rgb16() Geometry {
	return Geometry{Format: "rgb24", Width: 16, Height: 16, Planes: []pixel.Plane{{Offset: 0, Stride: 48, Rows: 16}}, Hz: 100}
}

func playCamera(b *Bus, p *Publisher) error {
	out, err := p.Frames("video", rgb16(), 8, 768)
	if err != nil {
		return err
	}
	if missing := out.Gate([]string{"clips"}, 5*time.Second, nil); missing != nil {
		return fmt.Errorf("gate misses %v", missing)
	}
	for n := range 5 {
		slot, err := out.Claim()
		if err != nil {
			return err
		}
		slot.Bytes()[0] = byte(n)
		if _, err := slot.Publish(768, b.Clock().Now()); err != nil {
			return err
		}
	}
	return nil
}

// killed runs a publisher until it has killed itself.
func killed(t *testing.T, role, run, shm string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], run, shm)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s ended with %v: %s; want it killed", role, err, out)
	}
}

func TestLastMessagesOfAKilledPublisher(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	killed(t, "counter", run, shm)
	expect(t, s, soon(t), 0, 120)
	if a := s.Totals(); a.Lost != 0 || a.Sent != 120 || a.Repaired < 20 || !sums(a) {
		t.Errorf("Totals() = %+v; want 120, at least 20 of them repaired", a)
	}
}

func TestKilledPublisherIsDrainedBeforeTheNext(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	b := openBus(t, run, shm, "csv")
	defer b.Close()
	s := subscribe(t, b, nil)
	killed(t, "counter", run, shm)
	c := startCounter(t, run, shm, Retention{})
	defer c.bus.Close()
	c.n = 120
	c.publish(t, 30)
	expect(t, s, soon(t), 0, 150)
	if a := s.Totals(); a.Lost != 0 || a.Sent != 150 || !sums(a) {
		t.Errorf("Totals() = %+v; want 150, none lost", a)
	}
}

func TestKilledCamera(t *testing.T) {
	t.Parallel()
	run, shm := folders(t)
	reader := openBus(t, run, shm, "clips")
	defer reader.Close()
	frames, err := reader.Frames(FrameSource{Source: "porch", Stream: "video"})
	if err != nil {
		t.Fatal(err)
	}
	killed(t, "camera", run, shm)
	read := func(n int) {
		t.Helper()
		f, ok, err := frames.Next(soon(t), time.Time{})
		if err != nil || !ok || f.Bytes()[0] != byte(n) {
			t.Fatalf("Next() = %v, %v; want frame %d", ok, err, n)
		}
		f.Release()
	}
	for n := range 5 {
		read(n)
	}
	// A killed run is no end, and its memory is let go: the next may need it.
	if _, ok, err := frames.Next(soon(t), time.Now().Add(300*time.Millisecond)); ok || err != nil {
		t.Errorf("Next() after the kill = %v, %v; want nothing", ok, err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(maps), shm+"/porch.video") {
		t.Error("the killed camera's ring is still mapped")
	}
	b, out := startFrames(t, run, shm)
	defer b.Close()
	for n := range 5 {
		publishFrame(t, b, out, byte(10+n))
		read(10 + n)
	}
	if a := frames.Totals(); a.Received != 10 || a.Sent != 10 || !sums(a) {
		t.Errorf("Totals() = %+v; want 10 received", a)
	}
}
