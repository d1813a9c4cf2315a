package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/boxtest/badline"
	"github.com/perch-edge/perch/internal/faultfs"
	"github.com/perch-edge/perch/pkg/msg"
)

// breaks are ways in which a line breaks.
func breaks() []string {
	return []string{
		fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": %d}}`, 600+rand.IntN(100_000)),
		fmt.Sprintf(`{"name": "t", "type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, 300+rand.IntN(10_000)),
		`{"name": "t", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		`{"name": "t", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
		`{"name": "t", "type": "reset_peer", "stream": "upstream", "attributes": {"timeout": 5}}`,
	}
}

// kills is how often tests of this package kill the sender.
func kills() int {
	if faultfs.Soak() > 0 {
		return 80
	}
	return 20
}

// built is the program as users build it: this binary holds the receivers of the tests too.
func built(t *testing.T) string {
	t.Helper()
	return filepath.Join(boxtest.Built(t, "jsonsender"), "jsonsender")
}

// wantSmall wants a built program to have had 60 MB at most since it began, without the histories, which
// are their publishers'.
func wantSmall(t *testing.T, p *boxtest.Process) {
	t.Helper()
	if kb := procNumber(t, p, "VmHWM:") - procNumber(t, p, "RssShmem:"); kb > 60<<10 {
		t.Errorf("it took %d KB; want 60 MB at most", kb)
	}
}

// procNumber is a number of /proc/PID/status (proc_pid_status(5)).
func procNumber(t *testing.T, p *boxtest.Process, key string) (n int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), key)
	if _, err := fmt.Sscan(after, &n); err != nil || !found {
		t.Fatalf("%s in %q: %v; want a number", key, text, err)
	}
	return n
}

// table is a receiver with one row an id. It answers each line with its id: late, or not at all
// when it drops the connection.
type table struct {
	t        *testing.T
	listener net.Listener

	mu       sync.Mutex
	rows     map[string]msg.Header // by id
	windows  map[string]uint64     // readings that a reduced row stands for, by id
	arrivals int
	order    []string
	acked    map[string]time.Time // of the first answer, by id
	came     map[string]int       // arrivals, by id
	troubled bool                 // it drops connections, and answers late
	silent   bool                 // it answers nothing
	group    sync.WaitGroup
	open     map[net.Conn]bool
}

func newTable(t *testing.T) *table {
	t.Helper()
	return newTableAt(t, "127.0.0.1:0")
}

func newTableAt(t *testing.T, at string) *table {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	r := &table{t: t, listener: l, rows: map[string]msg.Header{}, windows: map[string]uint64{}, acked: map[string]time.Time{}, came: map[string]int{}, open: map[net.Conn]bool{}}
	r.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.open[c] = true
			r.mu.Unlock()
			r.group.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(r.close)
	return r
}

// close ends it, with its connections.
func (r *table) close() {
	_ = r.listener.Close() // perhaps it is closed already
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.group.Wait()
}

func (r *table) at() string { return r.listener.Addr().String() }

func (r *table) serve(c net.Conn) {
	defer c.Close()
	lines, late := bufio.NewReader(c), []string(nil)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // half a line is none
			return
		}
		id, drop, wait := r.take(line)
		if late = append(late, id); drop {
			return
		}
		if wait {
			continue
		}
		if _, err := fmt.Fprintln(c, strings.Join(late, "\n")); err != nil {
			return
		}
		r.answer(late)
		late = nil
	}
}

// take stores a line, and decides what becomes of its answer.
func (r *table) take(line []byte) (id string, drop, wait bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var row struct {
		msg.Header
		Window *struct {
			Readings uint64 `json:"readings"`
		} `json:"window"`
	}
	if err := json.Unmarshal(line, &row); err != nil {
		r.t.Errorf("line %.200q: %v; want a record", line, err)
	}
	id = row.Node + "/" + row.ID()
	r.arrivals++
	r.came[id]++
	if _, known := r.rows[id]; !known {
		r.order = append(r.order, id)
	}
	r.rows[id] = row.Header
	if row.Window != nil {
		r.windows[id] = row.Window.Readings
	}
	if !r.troubled {
		return id, false, r.silent
	}
	return id, rand.IntN(150) == 0, rand.IntN(2) == 0
}

func (r *table) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rows)
}

func (r *table) count() (arrivals, rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arrivals, len(r.rows)
}

func (r *table) set(troubled, silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.troubled, r.silent = troubled, silent
}

// answer notes when ids were first answered.
func (r *table) answer(ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.acked[id].IsZero() {
			r.acked[id] = time.Now()
		}
	}
}

func (r *table) answered() map[string]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.acked)
}

// answeredOf is how many of these ids were answered.
func (r *table) answeredOf(ids []string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if !r.acked[id].IsZero() {
			n++
		}
	}
	return n
}

func (r *table) arrivalsByID() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.came)
}

// inOrder are the ids in the order of their first arrival.
func (r *table) inOrder() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.order)
}

// forget empties the table.
func (r *table) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.rows)
	r.order, r.arrivals = nil, 0
}

// counts are how often each id is in the table.
func (r *table) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[string]int{}
	for id := range r.rows {
		list[id]++
	}
	return list
}

// home is the sender's settings for that receiver, with short times.
func home(to, more string) string {
	return fmt.Sprintf("to = %q\nspool_after = \"100ms\"\nspool_sync = \"300ms\"\nretry_most = \"1s\"\nstall_after = \"1s\"\n%s", to, more)
}

// A receiver that acknowledges has each record at least once, whatever becomes of the line and of
// the sender; where its key is the id, once. What was sent again within a run is counted.
func TestKilledWithATable(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	to.set(true, false)
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true\nbatch_records = 100")))
	s := newSensorOf(t, b, []string{"n"}, 8192)
	for i := range kills() {
		p := b.Start("jsonsender", "home")
		for range rand.IntN(40) {
			s.rows(10)
			time.Sleep(rand.N(10 * time.Millisecond)) // what it is doing when it is killed is left to chance
		}
		if i%4 == 3 { // the history must hold what is not read yet
			boxtest.Poll(t, "all records so far", func() bool { return to.len() >= int(s.n.Load()) })
		}
		p.Kill()
	}
	to.set(false, false)
	p := b.Start("jsonsender", "home")
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() >= int(s.n.Load()) })
	p.Stop()
	wantOnce(t, to.counts(), s)
	arrivals, rows := to.count()
	t.Logf("%d records, %d arrivals", rows, arrivals)
}

// Within a run the state counts what arrives twice, or more.
func TestWhatIsSentAgainIsCounted(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	to.set(true, false)
	b := boxtest.New(t, fleet(home("tcp://"+to.at(), "ack = true\nbatch_records = 100")))
	s := newSensor(t, b)
	states := b.Follow(b.Bus("watch"), []msg.Kind{msg.KindState}, "home")
	p := b.Start("jsonsender", "home")
	stop := s.run()
	boxtest.Poll(t, "some records to arrive twice", func() bool { arrivals, rows := to.count(); return arrivals > rows+20 })
	stop()
	to.set(false, false)
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() >= int(s.n.Load()) })
	p.Ready()
	st := states.State("all acknowledged", func(st msg.State) bool { return st.Counters["acknowledged"] >= s.n.Load() })
	p.Stop()
	wantOnce(t, to.counts(), s)
	arrivals, rows := to.count()
	if got := st.Counters["sent_again"]; int(got) < arrivals-rows {
		t.Errorf("sent_again = %d; want at least %d, which came again", got, arrivals-rows)
	}
}

// A line that is cut, reset or silent costs nothing, and what follows arrives in order.
func TestBrokenLines(t *testing.T) {
	t.Parallel()
	to := newTable(t)
	line := badline.New(t, to.at())
	b := boxtest.New(t, fleet(home("tcp://"+line.Listen, "ack = true")))
	s := newSensor(t, b)
	p := b.Start("jsonsender", "home")
	stop := s.run()
	for _, text := range breaks() {
		s.more(100)
		line.Toxic(text)
		s.more(200)
		line.Cure()
	}
	stop()
	boxtest.Poll(t, "all records to arrive", func() bool { return to.len() >= int(s.n.Load()) })
	p.Stop()
	wantOnce(t, to.counts(), s)
	for i, id := range to.inOrder() {
		if id != s.id(i) {
			t.Fatalf("record %d to arrive first = %s; want %s", i, id, s.id(i))
		}
	}
}
