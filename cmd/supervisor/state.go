package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/proc"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// Box is the state of the whole box: one document. Its supervisor owns it,
// answers with it, and publishes it as state/supervisor/box.
type Box struct {
	Version    int               `json:"v"` // 1
	Node       string            `json:"node"`
	Location   topology.Location `json:"location,omitzero"`
	Time       msg.Time          `json:"time"`
	BootNS     int64             `json:"boot_ns"`
	BootID     string            `json:"boot_id"`
	Synced     bool              `json:"synced"` // the wall clock is disciplined
	Topology   string            `json:"topology"`
	Ready      bool              `json:"ready"` // every worker is ready or done
	Stopping   bool              `json:"stopping"`
	Folders    Folders           `json:"folders"`
	Supervisor Supervisor        `json:"supervisor"`
	Workers    []Worker          `json:"workers"` // sources before their readers
	Jobs       []Job             `json:"jobs"`    // whether they are well is no part of ready
	Edges      []Edge            `json:"edges"`
	Memory     Memory            `json:"memory"`
	Files      *Files            `json:"files,omitempty"` // none before they were counted first
}

// Folders are where the fleet's files are.
type Folders struct {
	Run   string `json:"run"`
	Shm   string `json:"shm"`
	Cache string `json:"cache"`
	Store string `json:"store"`
	Logs  string `json:"logs"`
}

// Supervisor is what the supervisor says of itself.
type Supervisor struct {
	PID             int    `json:"pid"`
	Version         string `json:"version"`
	SinceBootNS     int64  `json:"since_boot_ns"`
	RSSBytes        uint64 `json:"rss_bytes"`
	DroppedLogLines uint64 `json:"dropped_log_lines"` // neither kept nor shown: a disk or terminal was too slow
}

// Worker is one sensor or worker.
type Worker struct {
	Name        string        `json:"name"`
	Role        topology.Role `json:"role"`
	Program     string        `json:"program"`
	Phase       Phase         `json:"phase"`
	SinceBootNS int64         `json:"since_boot_ns"` // when the phase began
	PID         int           `json:"pid,omitempty"`
	UpS         float64       `json:"up_s"` // of the present process
	Restarts    int           `json:"restarts"`
	LastExit    *Exit         `json:"last_exit,omitempty"`
	Status      string        `json:"status"`
	Trouble     string        `json:"trouble,omitempty"`
	// Lost counts, over all runs since the supervisor's start, the messages that never
	// reached the worker, those that it could not send, and its counters lost_*.
	Lost        uint64               `json:"lost"`
	Counters    map[string]uint64    `json:"counters,omitempty"`
	Gauges      map[string]float64   `json:"gauges,omitempty"`
	Accounts    []msg.Account        `json:"accounts,omitempty"`
	Published   map[msg.Topic]Flow   `json:"published,omitempty"`
	Dropped     map[msg.Topic]uint64 `json:"dropped,omitempty"`
	Subscribers []string             `json:"subscribers,omitempty"`
	RSSBytes    uint64               `json:"rss_bytes"`    // its own memory
	SharedBytes uint64               `json:"shared_bytes"` // rings that it has mapped
	CPUPct      float64              `json:"cpu_pct"`      // of one core
}

// Job is one job: besides what a worker has, its schedule and what became of
// its runs. Its last run failed when there is trouble while none is running.
type Job struct {
	Worker
	Schedule string   `json:"schedule"`         // as "every 10m" or "cron 17 3 * * *"
	NextS    *float64 `json:"next_s,omitempty"` // time until the next run; none where it is not known
	Runs     uint64   `json:"runs"`
	Failures uint64   `json:"failures"`
	Skipped  uint64   `json:"skipped"` // were due while the one before still ran
}

// Flow is what went out on a stream in the present run.
type Flow struct {
	Count uint64  `json:"count"`
	Hz    float64 `json:"hz"`
}

// Edge is what a worker has read from a source since the supervisor's start.
type Edge struct {
	Source   string    `json:"source"`
	Reader   string    `json:"reader"`
	Topic    msg.Topic `json:"topic,omitempty"` // none until something came
	Hz       float64   `json:"hz"`
	Received uint64    `json:"received"` // repaired ones too
	Lost     uint64    `json:"lost"`
	Skipped  uint64    `json:"skipped"` // in the present epoch
}

// Memory is what is left.
type Memory struct {
	AvailableBytes uint64 `json:"available_bytes"` // RAM, MemAvailable of proc(5)
	ShmFreeBytes   uint64 `json:"shm_free_bytes"`
	StoreFreeBytes uint64 `json:"store_free_bytes"`
	StoreMounted   bool   `json:"store_mounted"` // false while nothing is mounted at store_mount
	// Written24hBytes went to disk in 24 hours of boot time, as far as workers count it.
	Written24hBytes uint64 `json:"written_24h_bytes"`
}

const boxVersion = 1

func round2(v float64) float64 { return math.Round(v*100) / 100 }

func (w *Worker) sinceBoot() time.Duration { return time.Duration(w.SinceBootNS) }

// well says whether the worker does what it should.
func (w *Worker) well() bool { return w.Phase == Ready || w.Phase == Done }

// box is the present state.
func (f *fleet) box() *Box {
	now, n := f.clock.Now(), f.plan.top.Node
	f.measure()
	own, _ := memoryOf(os.Getpid())
	b := &Box{Version: boxVersion, Node: n.Name, Location: n.Location, Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: f.clock.BootID(),
		Synced: now.Synced, Topology: f.plan.file, Ready: true, Workers: []Worker{}, Jobs: []Job{}, Edges: []Edge{},
		Folders: Folders{Run: n.RunDir, Shm: n.ShmDir, Cache: n.CacheDir, Store: n.StoreDir, Logs: f.logs.where()},
		Supervisor: Supervisor{PID: os.Getpid(), Version: version.String(), SinceBootNS: int64(f.began), RSSBytes: own,
			DroppedLogLines: f.book.dropped.Load()},
		Memory: Memory{AvailableBytes: uint64(proc.AvailableRAM()),
			ShmFreeBytes: freeBytes(n.ShmDir)},
		Files: f.files.Load()}
	if d := f.disk.Load(); d != nil {
		b.Memory.StoreMounted, b.Memory.StoreFreeBytes = d.mounted, d.free
	}
	for _, c := range slices.Backward(f.children) { // as the data flows
		w := f.worker(c, c.look(), now.Boot)
		b.Ready = b.Ready && w.well()
		b.Stopping = b.Stopping || w.Phase == Stopping
		b.Memory.Written24hBytes += uint64(max(w.Gauges["written_24h_bytes"], 0))
		b.Workers = append(b.Workers, w)
		b.Edges = append(b.Edges, f.edges(c, w.PID != 0)...)
	}
	for _, j := range f.jobs {
		o := f.job(j, now.Boot)
		b.Jobs = append(b.Jobs, o)
		b.Edges = append(b.Edges, f.edges(j.child, o.PID != 0)...)
	}
	return b
}

func (f *fleet) edges(c *child, running bool) (list []Edge) {
	for _, ref := range c.entry.Sources {
		list = append(list, f.observer.edges(c.entry.Name, ref, running)...)
	}
	return list
}

func (f *fleet) job(j *job, now time.Duration) Job {
	v := j.look()
	o := Job{Worker: f.worker(j.child, v, now), Schedule: j.entry.Schedule(), Runs: v.job.runs, Failures: v.job.failures, Skipped: v.job.skipped}
	o.Restarts = 0 // each run is one that was to be
	if v.job.due > 0 && (v.phase == Scheduled || v.process != nil) {
		left := round2(max(v.job.due-now, 0).Seconds())
		o.NextS = &left
	}
	if v.job.failed && v.phase == Scheduled {
		o.Trouble = "last run: " + v.lastExit.String()
	}
	return o
}

func (f *fleet) worker(c *child, v view, now time.Duration) Worker {
	w := Worker{Name: c.entry.Name, Role: c.entry.Role, Program: c.entry.Program, Phase: v.phase, SinceBootNS: int64(v.since),
		Restarts: max(v.starts-1, 0), LastExit: v.lastExit, Status: v.status}
	if p := v.process; p != nil {
		w.PID, w.UpS = p.pid, round2((now - p.began).Seconds())
	}
	if v.phase == Backoff || v.phase == Held {
		w.Status, w.Trouble = "", v.lastExit.String()
		if v.phase == Held {
			w.Trouble = v.lastExit.reason()
		}
	}
	if v.phase == Stopped {
		w.Status = "" // it says what it does no more
	}
	f.observer.describe(&w, v.began, now)
	return w
}

// freeBytes is the room that a folder's file system has for this user; for a
// folder that is not there, the one it would be made in.
func freeBytes(dir string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(nearestFolder(dir), &st); err != nil {
		return 0
	}
	return st.Bavail * uint64(st.Frsize) // what blocks are counted in: spool.Room
}

// notMounted says why the store must not be written to, where that is so.
func notMounted(n topology.Node) error {
	s, err := spool.NewStore(n.StoreDir, n.StoreMount).Look()
	if err == nil {
		err = s.Close()
	}
	if errors.Is(err, spool.ErrNotMounted) {
		return err
	}
	return nil
}

// publish sends the state once a second until ctx is done.
func (f *fleet) publish(ctx context.Context) {
	var states *msg.StateStream
	voice, err := f.bus.Publisher()
	if err == nil {
		states, err = voice.States("box")
	}
	if err != nil {
		f.log.Error("publish the state of the box", "err", err)
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := ""
	for {
		if err := f.say(states); err != nil && err.Error() != said {
			said = err.Error()
			f.log.Error("publish the state of the box", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fleet) say(states *msg.StateStream) error {
	box := f.box()
	doc, err := json.Marshal(box)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	state := msg.State{Program: ownName, PID: os.Getpid(), Ready: box.Ready, Status: box.summary(), ProgressNS: int64(clock.Boot()), Box: doc}
	return states.Publish(f.clock.Now(), state)
}

func (f *fleet) measure() {
	pids := map[string]int{}
	for _, c := range f.all() {
		if p := c.look().process; p != nil {
			pids[c.entry.Name] = p.pid
		}
	}
	f.observer.measure(pids, clock.Boot())
}

// summary is the box in one line.
func (b *Box) summary() string {
	var not []string
	well := 0
	for _, w := range b.Workers {
		if w.well() {
			well++
		} else {
			not = append(not, fmt.Sprintf("%s %s", w.Name, w.Phase))
		}
	}
	text := fmt.Sprintf("%d of %d ready", well, len(b.Workers))
	if len(not) > 0 {
		text += ": " + strings.Join(not, ", ")
	}
	return text
}
