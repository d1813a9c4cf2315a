package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

const (
	testEpoch = msg.Epoch(0x000283baec0033c3)
	testBoot  = "5f0c8f2e-6d0a-4c51-9d3c-0f4f6f0f9a11"
)

// reading is a record of one column.
func reading(t *testing.T, epoch msg.Epoch, seq msg.Seq) record.Record {
	t.Helper()
	topic := msg.TopicOf(msg.KindReading, "air", "environment")
	at := time.Date(2026, 5, 17, 9, 41, 7, 0, time.UTC).Add(time.Duration(seq) * time.Second)
	text := fmt.Sprintf(`{"v":1,"kind":"reading","node":"airpi-01","source":"air","stream":"environment","epoch":"%s","boot_id":"%s","seq":%d,"time":"%s","boot_ns":%d,"synced":true,"columns":["temperature_c"],"values":[%d]}`,
		epoch, testBoot, seq, msg.Time{Time: at}, 1e12+int64(seq)*1e9, seq)
	r, err := record.Parse(topic, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// box is an outbox on a store of its own.
type box struct {
	*outbox
	node  topology.Node
	cache *spool.Spool
}

func newBox(t *testing.T, l limits) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{node: topology.Node{StoreDir: dir + "/store", CacheDir: dir + "/cache"}}
	var err error
	if b.cache, err = spool.Open(b.node.CacheDir, spool.Work); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cache.Close() })
	b.start(t, l)
	t.Cleanup(func() { b.kill(t) })
	return b
}

// start begins a run; kill ends it as a kill does: what is in RAM alone is gone.
func (b *box) start(t *testing.T, l limits) {
	t.Helper()
	kept, err := loadProgress(b.cache, "work/home.sent", testBoot)
	if err != nil {
		t.Fatal(err)
	}
	b.outbox = newOutbox(l, kept)
	b.disk.init(b.node, "home", 64<<20)
	if err := b.openDisk(); err != nil {
		t.Fatal(err)
	}
}

func (b *box) kill(t *testing.T) {
	t.Helper()
	if err := errors.Join(b.save(), b.disk.close(), b.disk.store.Close()); err != nil {
		t.Fatal(err)
	}
}

func (b *box) save() error { return b.progress(testBoot).save(b.cache, "work/home.sent") }

func (b *box) add(t *testing.T, epoch msg.Epoch, seqs ...msg.Seq) {
	t.Helper()
	for _, seq := range seqs {
		b.outbox.add(reading(t, epoch, seq), seq, nil)
	}
}

// next takes a batch and returns its numbers; none when nothing can be taken at once.
func (b *box) next(t *testing.T) (batch []*entry, seqs []msg.Seq) {
	t.Helper()
	batch, _, err := b.collect(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range batch {
		seqs = append(seqs, e.record.Seq)
	}
	return batch, seqs
}

// settleAll gives all of a batch one fate.
func (b *box) settleAll(t *testing.T, batch []*entry, f fate) (aside []*entry) {
	t.Helper()
	return b.settle(batch, slices.Repeat([]fate{f}, len(batch)))
}

// seqsTo are the numbers from 0 to n-1.
func seqsTo(n int) (list []msg.Seq) {
	for i := range n {
		list = append(list, msg.Seq(i))
	}
	return list
}

func usual() limits {
	return limits{records: 100, bytes: 1 << 20, attempts: 3, after: 5 * time.Second, sync: 10 * time.Second}
}

func TestWhatIsAcknowledgedInTimeNeverTouchesTheDisk(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1, 2)
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want 0, 1, 2", seqs)
	}
	b.settleAll(t, batch, arrived)
	if s := b.status(time.Now()); s.ram != 0 || s.disk != 0 {
		t.Errorf("waiting = %d in RAM, %d on disk; want none", s.ram, s.disk)
	}
	if _, work := b.spoolDue(time.Now().Add(time.Hour), time.Time{}); work {
		t.Error("the disk is to be written; want nothing to write")
	}
	cursor, ok := b.resume("reading/air/environment")
	if want := (msg.Cursor{Epoch: testEpoch, Seq: 2}); !ok || cursor != want {
		t.Errorf("resume = %v, %v; want %v", cursor, ok, want)
	}
}

func TestABacklogGoesFirstAndInOrder(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1, 2)
	batch, _ := b.next(t)
	b.settleAll(t, batch, waits)
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	b.add(t, testEpoch, 3, 4)
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want what is on disk, 0 to 2", seqs)
	}
	b.settleAll(t, batch, arrived)
	if _, seqs = b.next(t); !slices.Equal(seqs, []msg.Seq{3, 4}) {
		t.Errorf("batch = %v; want 3 and 4, which are in RAM", seqs)
	}
}

// What was read ahead of a batch is the next one, also when the batch is sent again before that, and
// when one of its records is gone meanwhile.
func TestReadsAhead(t *testing.T) {
	l := usual()
	l.records = 3
	b := newBox(t, l)
	b.add(t, testEpoch, seqsTo(9)...)
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	batch, _ := b.next(t)
	b.readAhead(batch)
	ahead := slices.Clone(b.disk.ahead)
	if len(ahead) != 3 || ahead[0].record.Seq != 3 {
		t.Fatalf("%d records were read ahead of 0 to 2; want 3 to 5", len(ahead))
	}
	b.settleAll(t, batch, waits)
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch after a failure = %v; want 0 to 2 again", seqs)
	}
	b.settleAll(t, batch, arrived)
	b.drop(ahead[:1])
	batch, seqs = b.next(t)
	if !slices.Equal(seqs, []msg.Seq{4, 5, 6}) || batch[0] != ahead[1] || batch[1] != ahead[2] {
		t.Fatalf("batch = %v; want 4 to 6, the first two as they were read ahead", seqs)
	}
	b.settleAll(t, batch, arrived)
	if batch, seqs = b.next(t); !slices.Equal(seqs, []msg.Seq{7, 8}) {
		t.Errorf("batch = %v; want 7 and 8, of which nothing was read ahead", seqs)
	}
	b.readAhead(batch)
	if len(b.disk.ahead) > 0 {
		t.Errorf("%d records were read ahead of the last ones; want none", len(b.disk.ahead))
	}
}

// A record that is acknowledged while it is being written to disk is not sent again.
func TestAcknowledgedWhileItIsSpooled(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1)
	batch, _ := b.next(t)
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	b.settleAll(t, batch, arrived)
	if _, seqs := b.next(t); len(seqs) > 0 {
		t.Errorf("batch = %v; want none: both were acknowledged", seqs)
	}
}

// Killed at any moment, a sender neither loses nor repeats what it has noted: the history gives it
// the messages from where it resumes.
func TestKilled(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1, 2, 3)
	batch, _ := b.next(t)
	b.settle(batch, []fate{arrived, waits, arrived, waits})
	b.kill(t)
	b.start(t, usual())
	cursor, ok := b.resume("reading/air/environment")
	if want := (msg.Cursor{Epoch: testEpoch, Seq: 0}); !ok || cursor != want {
		t.Fatalf("resume = %v, %v; want %v: 1 was not acknowledged", cursor, ok, want)
	}
	b.add(t, testEpoch, 1, 2, 3) // from the history
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, []msg.Seq{1, 3}) {
		t.Fatalf("batch = %v; want 1 and 3: 2 was acknowledged", seqs)
	}
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	b.kill(t)
	b.start(t, usual())
	if _, seqs = b.next(t); !slices.Equal(seqs, []msg.Seq{1, 3}) {
		t.Errorf("batch = %v; want 1 and 3, from the disk", seqs)
	}
	if cursor, _ = b.resume("reading/air/environment"); cursor.Seq != 3 {
		t.Errorf("resume behind %d; want 3, which is on disk", cursor.Seq)
	}
}

// Killed between writing the backlog and noting that, a sender finds what is there: the history's copies
// are not sent as well.
func TestKilledBeforeTheSpoolingIsNoted(t *testing.T) {
	b := newBox(t, usual())
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	b.add(t, testEpoch, 0, 1, 2)
	if err := errors.Join(b.spool(), b.disk.close(), b.disk.store.Close()); err != nil {
		t.Fatal(err)
	}
	b.start(t, usual())
	b.add(t, testEpoch, 0, 1, 2, 3) // from the history
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want 0 to 2, from the disk", seqs)
	}
	b.settleAll(t, batch, arrived)
	if _, seqs = b.next(t); !slices.Equal(seqs, []msg.Seq{3}) {
		t.Errorf("batch = %v; want 3 alone", seqs)
	}
}

// A record that the receiver refuses, while it takes others, does not hold them up.
func TestRefusedRecords(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1)
	batch, _ := b.next(t)
	if aside := b.settle(batch, []fate{refused, arrived}); len(aside) > 0 {
		t.Fatalf("settle = %d aside; want none: it was refused once of three times", len(aside))
	}
	b.add(t, testEpoch, 2)
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, []msg.Seq{2}) {
		t.Fatalf("batch = %v; want 2: the refused record waits", seqs)
	}
	b.settleAll(t, batch, arrived)
	var aside []*entry
	for range 2 {
		for _, p := range b.parked {
			p.until = time.Time{}
		}
		batch, seqs = b.next(t)
		if !slices.Equal(seqs, []msg.Seq{0}) {
			t.Fatalf("batch = %v; want 0 once more", seqs)
		}
		aside = b.settleAll(t, batch, refused)
	}
	if len(aside) != 1 {
		t.Fatalf("%d records are to be set aside; want 1", len(aside))
	}
	b.drop(aside)
	if n := b.left() + b.refusals(); n != 0 {
		t.Errorf("%d records are left; want none", n)
	}
}

// A receiver that refuses everything is in trouble itself: that costs no record.
func TestAReceiverThatRefusesEverything(t *testing.T) {
	b := newBox(t, usual())
	b.add(t, testEpoch, 0, 1)
	for range 10 {
		for _, p := range b.parked {
			p.until = time.Time{}
		}
		batch, seqs := b.next(t)
		if !slices.Equal(seqs, seqsTo(2)) {
			t.Fatalf("batch = %v; want 0 and 1", seqs)
		}
		if aside := b.settleAll(t, batch, refused); len(aside) > 0 {
			t.Fatalf("%d records are to be set aside; want none, since none was accepted", len(aside))
		}
	}
}

func TestOnlyTheNewestStateWaits(t *testing.T) {
	b := newBox(t, usual())
	for seq := range 3 {
		text := fmt.Sprintf(`{"v":1,"kind":"state","node":"airpi-01","source":"air","stream":"state","epoch":"%s","boot_id":"%s","seq":%d,"time":"2026-05-17T09:41:07.250000000Z","boot_ns":1,"synced":true,"program":"p","pid":1,"ready":true,"status":"","progress_ns":1,"counters":{}}`,
			testEpoch, testBoot, seq)
		r, err := record.Parse("state/air/state", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if replaced := b.outbox.add(r, r.Seq, nil); replaced != (seq > 0) {
			t.Errorf("add state %d = replaced %v; want %v", seq, replaced, seq > 0)
		}
	}
	if _, seqs := b.next(t); !slices.Equal(seqs, []msg.Seq{2}) {
		t.Errorf("batch = %v; want 2, the newest", seqs)
	}
}

// With spool_after = "0s" nothing is sent that is not on disk.
func TestSpoolBeforeSending(t *testing.T) {
	l := usual()
	l.after = 0
	b := newBox(t, l)
	b.add(t, testEpoch, 0)
	if _, seqs := b.next(t); len(seqs) > 0 {
		t.Fatalf("batch = %v; want none before it is on disk", seqs)
	}
	if _, work := b.spoolDue(time.Now(), time.Now()); !work {
		t.Fatal("nothing is to be written to disk; want it written at once")
	}
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	if _, seqs := b.next(t); !slices.Equal(seqs, seqsTo(1)) {
		t.Errorf("batch = %v; want 0", seqs)
	}
}

// While the link is down the disk is synced once in spool_sync, not for each record.
func TestSyncsWhileTheLinkIsDown(t *testing.T) {
	b := newBox(t, usual())
	start, syncs, last := time.Now(), 0, time.Time{}
	for second := range 100 { // 1 Hz
		now := start.Add(time.Duration(second) * time.Second)
		b.add(t, testEpoch, msg.Seq(second))
		b.waiting[len(b.waiting)-1].at = now
		if _, work := b.spoolDue(now, last); work {
			if err := b.spool(); err != nil {
				t.Fatal(err)
			}
			syncs, last = syncs+1, now
		}
	}
	if syncs < 8 || syncs > 11 {
		t.Errorf("%d syncs in 100 s; want one in 10 s", syncs)
	}
}

func TestProgressThatCannotBeRead(t *testing.T) {
	b := newBox(t, usual())
	for _, text := range []string{"", "{", `{"v":2}`, "\x00\x00", `{"v":1,"boot_id":"` + testBoot + `","streams":{"x":null}}`} {
		if err := b.cache.WriteAtom("work/home.sent", []byte(text)); err != nil {
			t.Fatal(err)
		}
		p, _ := loadProgress(b.cache, "work/home.sent", testBoot)
		if _, ok := p.Streams.resume("reading/air/environment"); ok {
			t.Errorf("resume after %q = a cursor; want none", text)
		}
	}
	if err := os.Remove(b.node.CacheDir + "/work/home.sent"); err != nil {
		t.Fatal(err)
	}
	if p, err := loadProgress(b.cache, "work/home.sent", testBoot); err != nil || p.Streams == nil {
		t.Errorf("loadProgress of no file = %v, %v; want an empty one, nil", p, err)
	}
}

// A receiver that knows batches by a key gets one that may have arrived again as it was, also
// after a kill, whatever has come meanwhile.
func TestAKeyedBatchIsRepeated(t *testing.T) {
	l := usual()
	l.keyed = true
	b := newBox(t, l)
	b.add(t, testEpoch, 0, 1, 2)
	batch, _ := b.next(t)
	b.add(t, testEpoch, 3)
	b.settleAll(t, batch, waits)
	if _, seqs := b.next(t); !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want 0 to 2 again", seqs)
	}
	if err := b.spool(); err != nil {
		t.Fatal(err)
	}
	if _, seqs := b.next(t); !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want 0 to 2 again, from the disk", seqs)
	}
	b.kill(t)
	b.start(t, l)
	batch, seqs := b.next(t)
	if !slices.Equal(seqs, seqsTo(3)) {
		t.Fatalf("batch = %v; want 0 to 2 again, after a kill", seqs)
	}
	b.settleAll(t, batch, arrived)
	batch, seqs = b.next(t)
	if !slices.Equal(seqs, []msg.Seq{3}) {
		t.Fatalf("batch = %v; want 3", seqs)
	}
	b.settleAll(t, batch, arrived)
}

// Killed while the batch under way was in RAM, a sender waits until the history has brought it.
func TestAKeyedBatchComesBackFromTheHistory(t *testing.T) {
	l := usual()
	l.keyed = true
	b := newBox(t, l)
	b.add(t, testEpoch, 0, 1)
	b.next(t)
	b.kill(t)
	b.start(t, l)
	b.add(t, testEpoch, 0)
	if _, seqs := b.next(t); len(seqs) > 0 {
		t.Fatalf("batch = %v; want none before 1 has come", seqs)
	}
	b.add(t, testEpoch, 1, 2)
	if _, seqs := b.next(t); !slices.Equal(seqs, seqsTo(2)) {
		t.Fatalf("batch = %v; want 0 and 1 as before", seqs)
	}
	b.attempt.until = time.Now()
	b.kill(t)
	b.start(t, l)
	b.attempt.until = time.Now()
	b.add(t, testEpoch, 1)
	if _, seqs := b.next(t); !slices.Equal(seqs, []msg.Seq{1}) {
		t.Fatalf("batch = %v; want what there is once the time is over", seqs)
	}
}

func TestTakeWaits(t *testing.T) {
	b := newBox(t, usual())
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan int, 1)
	go func() {
		batch, _ := b.take(ctx)
		b.settle(batch, []fate{arrived})
		got <- len(batch)
		_, err := b.take(ctx)
		if !errors.Is(err, context.Canceled) {
			got <- -1
		}
		close(got)
	}()
	b.add(t, testEpoch, 0)
	if n := <-got; n != 1 {
		t.Errorf("take = %d records; want 1", n)
	}
	cancel()
	if n, open := <-got; open {
		t.Errorf("take after cancel = %d; want context.Canceled", n)
	}
}
