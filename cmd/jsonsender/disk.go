package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/backlog"
	"github.com/perch-edge/perch/cmd/jsonsender/internal/record"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
)

// folder is where the backlogs of all senders of a store are, each under its worker's name: a
// receiver's address may be corrected without the backlog being left behind.
const folder = "outbox"

// reopenEvery is how often a disk that is absent or failed is looked for.
const reopenEvery = time.Second

// ackSync is how soon what was acknowledged is durable.
const ackSync = time.Second

// disk is the backlog on a disk that may be absent or fail. It is locked by its user.
type disk struct {
	sync.Mutex
	store *spool.Store
	name  string
	most  int64
	spool *spool.Spool // that the log is in
	root  *os.Root
	log   *backlog.Log // nil while there is none

	owed     map[backlog.Position]string // ids that were acknowledged, and that the log could not take out
	written  int64                       // by logs before this one
	acked    time.Time                   // when something was acknowledged first since the last sync; zero: nothing
	unsynced bool                        // something was written since the last sync that succeeded

	ahead []*entry // the next records after those that are being sent, by position
}

func (d *disk) init(n topology.Node, name string, most int64) {
	d.store, d.name, d.most, d.owed = spool.NewStore(n.StoreDir, n.StoreMount), name, most, map[backlog.Position]string{}
}

// open opens the backlog where it is not open, and closes it when its disk is gone, or is another one.
func (d *disk) open() (opened bool, err error) {
	sp, err := d.store.Spool()
	if err != nil {
		return false, errors.Join(err, d.close())
	}
	if d.log != nil && sp == d.spool {
		return false, nil
	}
	if err := d.close(); err != nil {
		return false, err
	}
	if d.root, err = sp.Folder(folder); err != nil {
		return false, err
	}
	if d.log, err = backlog.Open(d.root, d.name, backlog.Config{MaxBytes: d.most}); err != nil {
		d.log = nil
		return false, errors.Join(err, d.root.Close())
	}
	d.spool = sp
	return true, nil
}

// close closes the backlog, where it is open.
func (d *disk) close() error {
	if d.log == nil {
		return nil
	}
	err := errors.Join(d.log.Close(), d.root.Close())
	d.written += d.log.Written()
	d.log, d.ahead = nil, nil // the next log may give the positions of lost records to others
	return err
}

// writtenBytes is what was written to the disk.
func (d *disk) writtenBytes() int64 {
	if d.log == nil {
		return d.written
	}
	return d.written + d.log.Written()
}

func (d *disk) len() uint64 {
	if d.log == nil {
		return 0
	}
	return d.log.Len()
}

// peek is the oldest records. One that cannot be parsed is taken out and counted.
func (d *disk) peek(records, bytes int) (list []*entry, err error) {
	for {
		stored, err := d.log.Peek(0, records, bytes)
		if err != nil {
			return nil, fmt.Errorf("read backlog: %w", err)
		}
		list, broken, owed := d.sort(stored)
		if err = errors.Join(d.log.Skip(broken...), d.log.Ack(owed...)); err == nil {
			for _, p := range owed {
				delete(d.owed, p)
			}
		}
		if err != nil || len(list) > 0 || len(stored) == 0 {
			return list, err
		}
	}
}

// sort separates what is to be sent, what cannot be parsed, and what has been acknowledged.
func (d *disk) sort(stored []backlog.Entry) (list []*entry, broken, owed []backlog.Position) {
	for _, s := range stored {
		e, err := d.takeAhead(s.Position), error(nil)
		if e == nil {
			e, err = parse(s)
		}
		id, isOwed := d.owed[s.Position]
		switch {
		case err != nil:
			broken = append(broken, s.Position)
		case isOwed && id == e.record.ID():
			owed = append(owed, s.Position)
		default:
			list = append(list, e)
		}
	}
	return list, broken, owed
}

func parse(s backlog.Entry) (*entry, error) {
	r, err := record.Parse(msg.Topic(s.Key), s.Payload)
	return &entry{record: r, disk: s.Position, stored: true}, err
}

// takeAhead is the record at a position, where it was read ahead. What comes before is given up.
func (d *disk) takeAhead(p backlog.Position) *entry {
	for len(d.ahead) > 0 && d.ahead[0].disk < p {
		d.ahead = d.ahead[1:]
	}
	if len(d.ahead) == 0 || d.ahead[0].disk != p {
		return nil
	}
	e := d.ahead[0]
	d.ahead = d.ahead[1:]
	return e
}

// readAhead reads and parses the records that follow a batch, while that is being sent: parsing takes
// about as long. What it cannot read or parse is left to peek.
func (o *outbox) readAhead(batch []*entry) {
	var last backlog.Position
	for _, e := range batch {
		last = max(last, e.disk)
	}
	o.disk.Lock()
	log := o.disk.log
	if last == 0 || log == nil || len(o.disk.ahead) > 0 {
		o.disk.Unlock()
		return
	}
	stored, err := log.Peek(last, o.limits.records, o.limits.bytes)
	o.disk.Unlock()
	if err != nil {
		return
	}
	list := make([]*entry, 0, len(stored))
	for _, s := range stored {
		if e, err := parse(s); err == nil {
			list = append(list, e)
		}
	}
	o.disk.Lock()
	defer o.disk.Unlock()
	if o.disk.log == log {
		o.disk.ahead = list
	}
}

// maxOwed bounds what is remembered of acknowledgements that the disk did not take: some batches.
const maxOwed = 20_000

// ack takes records out of the backlog. What the disk does not take is taken out before it would
// be sent again.
func (d *disk) ack(list []*entry) (err error) {
	if len(list) == 0 {
		return nil
	}
	positions := make([]backlog.Position, len(list))
	for i, e := range list {
		positions[i] = e.disk
	}
	if err = errNoDisk; d.log != nil {
		err = d.log.Ack(positions...)
	}
	if err == nil {
		if d.acked.IsZero() {
			d.acked = time.Now()
		}
		return nil
	}
	for _, e := range list {
		if len(d.owed) < maxOwed {
			d.owed[e.disk] = e.record.ID()
		}
	}
	return fmt.Errorf("note in the backlog what was acknowledged: %w", err)
}

var errNoDisk = errors.New("the disk is not there")

// One append takes so many records and bytes at most.
const (
	appendRecords = 1000
	appendBytes   = 128 << 10
)

// write appends the records that are not in the backlog, and makes all durable. Those that it
// could append have a position, and are safe when all are durable.
func (d *disk) write(list []*entry) (durable bool, err error) {
	var fresh []*entry
	for _, e := range list {
		if e.disk == 0 {
			fresh = append(fresh, e)
		}
	}
	for len(fresh) > 0 && err == nil {
		part := firstPart(fresh)
		if err = d.append(part); err == nil {
			d.unsynced = true
			fresh = fresh[len(part):]
		}
	}
	if d.unsynced {
		err = errors.Join(err, d.sync())
	}
	if err != nil {
		err = fmt.Errorf("write backlog: %w", err)
	}
	return !d.unsynced, err
}

// firstPart is what one append takes.
func firstPart(list []*entry) []*entry {
	size := 0
	for i, e := range list[:min(len(list), appendRecords)] {
		if size += e.size(); size > appendBytes && i > 0 {
			return list[:i]
		}
	}
	return list[:min(len(list), appendRecords)]
}

func (d *disk) append(list []*entry) error {
	stored := make([]backlog.Entry, len(list))
	for i, e := range list {
		r := &e.record
		stored[i] = backlog.Entry{Class: classOf(r.Kind), Key: string(r.Topic()), Time: r.Time.Time, Payload: r.Raw()}
	}
	first, err := d.log.Append(stored...)
	if err != nil {
		return err
	}
	for i, e := range list {
		e.disk = first + backlog.Position(i)
	}
	return nil
}

func (d *disk) sync() error {
	err := d.log.Sync()
	d.unsynced, d.acked = err != nil, time.Time{}
	return err
}

// classOf is the class of a kind: when there is no more room, readings are lost first.
func classOf(k msg.Kind) backlog.Class {
	if k == msg.KindReading {
		return backlog.Reading
	}
	return backlog.Event
}

// spoolLoop writes to disk what has waited too long, until done is closed. trouble is called with
// the result of each attempt.
func (o *outbox) spoolLoop(done <-chan struct{}, trouble func(error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		wait, work := o.spoolDue(time.Now(), last)
		wait = min(wait, o.syncAcks(time.Now()))
		due := o.due
		if work {
			err := o.spool()
			trouble(err)
			if last = time.Now(); err == nil {
				continue
			}
			wait, due = reopenEvery, nil // a disk that fails is not asked for each record
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-due:
		case <-done:
			return
		}
	}
}

// syncAcks makes durable what was acknowledged a second ago, and returns when to look again: where
// nothing more is acknowledged, nothing else would.
func (o *outbox) syncAcks(now time.Time) time.Duration {
	o.disk.Lock()
	defer o.disk.Unlock()
	d := &o.disk
	if d.acked.IsZero() || d.log == nil {
		return never
	}
	if wait := d.acked.Add(ackSync).Sub(now); wait > 0 {
		return wait
	}
	if err := d.sync(); err != nil {
		return 0 // and the state shows it
	}
	return never
}

// spoolDue is when records are to be written to disk next.
func (o *outbox) spoolDue(now, last time.Time) (wait time.Duration, work bool) {
	o.disk.Lock()
	behind, unsynced, absent := o.disk.len() > 0, o.disk.unsynced, o.disk.log == nil
	o.disk.Unlock()
	if absent {
		again := last.Add(reopenEvery)
		return again.Sub(now), !again.After(now)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return never, unsynced
	}
	at := o.waiting[0].at.Add(o.limits.after)
	if sync := last.Add(o.limits.sync); behind && o.limits.after > 0 && at.Before(sync) {
		at = sync
	}
	if 2*len(o.waiting) >= maxWaiting || 2*o.bytes >= maxWaitingBytes {
		at = now
	}
	return at.Sub(now), !at.After(now)
}

// spool writes all that waits to disk. Where the disk was absent it looks for it.
func (o *outbox) spool() error {
	o.disk.Lock()
	defer o.disk.Unlock()
	if err := o.openDisk(); err != nil {
		return err
	}
	o.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(o.waiting), func(e *entry) bool { return e.done })
	o.mu.Unlock()
	if len(list) == 0 && !o.disk.unsynced {
		return nil
	}
	durable, err := o.disk.write(list)
	if durable {
		o.safe(list)
	}
	signal(o.more)
	return err
}

// safe settles the records that are in the backlog.
func (o *outbox) safe(list []*entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range list {
		if e.disk != 0 {
			o.tracks.settle(e.record.Topic(), e.span)
			o.spooled = e.disk + 1
		}
	}
	o.compact()
}

// openDisk opens the backlog where it is not open. The caller holds the disk's lock.
func (o *outbox) openDisk() error {
	opened, err := o.disk.open()
	if opened {
		err = o.compare()
		signal(o.more)
	}
	return err
}

// compare finds out which records went to the backlog that are not known to be there: the sender was
// killed, or the disk removed, before that was noted. The caller holds the disk's lock.
func (o *outbox) compare() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost == nil {
		o.lost = byReason(o.disk.log.LossesBefore())
	}
	if o.spooled == 0 { // this boot has written nothing yet
		o.spooled = o.disk.log.Next()
	}
	waiting := map[string]*entry{}
	for _, e := range o.waiting {
		e.disk = 0
		waiting[e.record.ID()] = e
	}
	return o.disk.log.Since(o.spooled-1, func(s backlog.Entry) {
		r, err := record.Parse(msg.Topic(s.Key), s.Payload)
		if err != nil {
			return
		}
		if e := waiting[r.ID()]; e != nil {
			e.disk = s.Position
			o.disk.unsynced = true
			return
		}
		o.tracks.spooled(r.Topic(), r.Epoch, r.Seq)
	})
}
