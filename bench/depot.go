package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
)

// depot has what is needed to carry files: a server that takes them, and
// folders.
type depot struct {
	dir, bin string
	server   *child
	address  string
}

func openDepot(ctx context.Context, dir, bin string) (*depot, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	d := &depot{dir: dir, bin: bin}
	if err := os.Mkdir(d.web(), 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if d.server, err = spawn(ctx, program, "web-server", "--dir", d.web()); err != nil {
		return nil, err
	}
	if err := d.server.hear(&d.address); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *depot) web() string { return filepath.Join(d.dir, "web") }

func (d *depot) close() error { return errors.Join(d.server.stop(), os.RemoveAll(d.web())) }

// trip is one run: where the files are, and where they go.
type trip struct {
	*depot
	load
	cache, store string
	web          string // of the server, which has nothing else in it
	names        []string
}

// carry lets a way carry a load, and looks whether all of it has arrived. It
// counts what is written where m is the disk's.
func (d *depot) carry(ctx context.Context, way carrier, l load, disk string, m *meter) (c carried, err error) {
	t := &trip{depot: d, load: l, cache: filepath.Join(d.dir, "cache"), web: filepath.Join(d.web(), "box")}
	if t.store, err = os.MkdirTemp(disk, "perch-bench-"); err != nil {
		return c, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.store), os.RemoveAll(t.cache), os.RemoveAll(t.web)) }()
	if err := errors.Join(os.Mkdir(t.web, 0o700), t.fill(way)); err != nil {
		return c, err
	}
	unix.Sync() // what others have left to be written
	c.written, err = m.over(func() error {
		used := childrenMicros()
		took, err := t.run(ctx, way)
		c.seconds, c.cpu = took.Seconds(), (childrenMicros()-used)/1e6
		return err
	})
	if err != nil {
		return c, err
	}
	return c, t.check()
}

// fill makes the files in RAM: for perch as a worker leaves them, with their
// sidecars; for the others as they are.
func (t *trip) fill(way carrier) (err error) {
	cache, err := spool.Open(t.cache, spool.Work, spool.Born)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	now, err := clock.System()
	if err != nil {
		return err
	}
	text, random := make([]byte, t.bytes), rand.NewChaCha8([32]byte{})
	for n := range t.files {
		random.Read(text)
		side := describe(now, uint64(n))
		t.names = append(t.names, side.Name)
		if way != perch {
			err = os.WriteFile(filepath.Join(t.cache, string(spool.Born), side.Name), text, 0o600)
		} else {
			err = complete(cache, side, text)
		}
		if err != nil {
			return fmt.Errorf("make file: %w", err)
		}
	}
	return nil
}

// makerName is whose the files are.
const makerName = "pictures"

func describe(c *clock.Clock, n uint64) *sidecar.Sidecar {
	now := c.Now()
	at := sidecar.Moment{Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: c.BootID(), Synced: now.Synced}
	id := sidecar.NewID(makerName, now.Wall, 1, n)
	return &sidecar.Sidecar{Version: sidecar.Version, ID: id, Name: string(id) + ".jpg", Media: "image/jpeg", Node: "bench", Worker: makerName,
		Program: "bench", Source: "frame/porch/video", Start: at, End: at, Items: 1, History: []sidecar.Event{{State: string(spool.Born),
			Time: at.Time, BootNS: at.BootNS, BootID: at.BootID, Synced: at.Synced, By: makerName, Reason: "to be carried"}}}
}

func complete(cache *spool.Spool, side *sidecar.Sidecar, text []byte) (err error) {
	f, err := cache.Create(side.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return cache.Complete(f, spool.Born, side)
}

// check looks whether the server has all files, whole, and RAM has none.
func (t *trip) check() error {
	for _, name := range t.names {
		if st, err := os.Stat(filepath.Join(t.web, name)); err != nil || st.Size() != int64(t.bytes) {
			return fmt.Errorf("the server has not %s whole: %w", name, err)
		}
	}
	left, err := filepath.Glob(t.cache + "/born/*")
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d files are left in RAM", len(left))
	}
	return err
}

// run carries, and says how long it took from the start of the first process
// until the last file was at its end.
func (t *trip) run(ctx context.Context, way carrier) (time.Duration, error) {
	start := time.Now()
	var err error
	switch way {
	case perch:
		return t.perch(ctx)
	case rclones:
		err = t.rclone(ctx)
	default:
		err = t.shell(ctx, way)
	}
	return time.Since(start), err
}

// topology writes the file that the two programs are started with.
func (t *trip) topology() (string, error) {
	file := filepath.Join(t.cache, "topology.toml")
	text := fmt.Sprintf(`[node]
name = "bench"
run_dir = %q
shm_dir = %q
cache_dir = %q
store_dir = %q
[sensor.porch]
program = "sensor-camera"
[worker.%s]
program = "jpegwriter"
source = "porch"
[worker.keep]
program = "mover"
source = %[5]q
[worker.send]
program = "uploader"
source = "keep"
to = "http://%[6]s/box"
`, t.dir+"/run", t.dir+"/shm", t.cache, t.store, makerName, t.address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write topology: %w", err)
	}
	return file, nil
}

// perch starts the two, and ends them when the last file is in sent/.
func (t *trip) perch(ctx context.Context) (took time.Duration, err error) {
	file, err := t.topology()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	var all []*exec.Cmd
	defer func() {
		for _, cmd := range all {
			failed := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
			if err = errors.Join(err, failed); err != nil {
				err = fmt.Errorf("%w\n%s", err, cmd.Stderr)
			}
		}
	}()
	for _, p := range [][2]string{{"uploader", "send"}, {"mover", "keep"}} {
		cmd := exec.CommandContext(ctx, filepath.Join(t.bin, p[0]), "--topology", file, "--name", p[1])
		cmd.Stderr = &bytes.Buffer{}
		if err := cmd.Start(); err != nil {
			return 0, fmt.Errorf("start %s (make build makes it): %w", p[0], err)
		}
		all = append(all, cmd)
	}
	for t.sent() < t.files {
		if err := ctx.Err(); err != nil || time.Since(start) > 5*time.Minute {
			return 0, errors.Join(fmt.Errorf("%d of %d files were sent", t.sent(), t.files), err)
		}
		time.Sleep(2 * time.Millisecond) // between two looks at other processes
	}
	return time.Since(start), nil
}

// sent is how many files are at their end: with a receipt.
func (t *trip) sent() (n int) {
	dir, err := os.Open(filepath.Join(t.store, string(spool.Sent)))
	if err != nil {
		return 0 // not there yet
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".jpg") {
			n++
		}
	}
	return n
}

// script carries one file, in a folder with cache and store.
const script = `set -eu
cp "$CACHE/born/$1" "$STORE/work/$1"
$SYNC "$STORE/work/$1"
mv -n "$STORE/work/$1" "$STORE/ready/$1"
$SYNC "$STORE/ready"
rm "$CACHE/born/$1"
curl -sSf -o /dev/null -T "$STORE/ready/$1" "$URL/$1"
mv -n "$STORE/ready/$1" "$STORE/sent/$1"
$SYNC "$STORE/sent" "$STORE/ready"
`

// shell carries by a loop in the shell, two files at a time.
func (t *trip) shell(ctx context.Context, way carrier) error {
	for _, state := range []spool.State{spool.Work, spool.Ready, spool.Sent} {
		if err := os.Mkdir(filepath.Join(t.store, string(state)), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	sync := "sync"
	if way == plain {
		sync = ":"
	}
	cmd := exec.CommandContext(ctx, "xargs", "-P", "2", "-n", "1", "sh", "-c", script, "sh")
	cmd.Stdin = strings.NewReader(strings.Join(t.names, "\n"))
	cmd.Env = append(os.Environ(), "CACHE="+t.cache, "STORE="+t.store, "SYNC="+sync, "URL=http://"+t.address+"/box")
	return t.do(cmd)
}

// rclone carries all files to disk, and then all to the server.
func (t *trip) rclone(ctx context.Context) error {
	ready := filepath.Join(t.store, string(spool.Ready))
	for _, args := range [][]string{{t.cache + "/born", ready}, {ready, ":webdav:box"}} {
		args = append([]string{"move", "--config", "/dev/null", "--transfers", "2", "--webdav-url", "http://" + t.address}, args...)
		if err := t.do(exec.CommandContext(ctx, "rclone", args...)); err != nil {
			return err
		}
	}
	return nil
}

func (t *trip) do(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, out)
	}
	return nil
}

// childrenMicros is the CPU time of all processes that this one started and
// that have ended.
func childrenMicros() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		panic("getrusage of ended processes: " + err.Error()) // it has no way to fail
	}
	return rusageMicros(&u)
}
