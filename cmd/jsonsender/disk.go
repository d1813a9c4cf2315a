package main

import (
	"errors"
	"fmt"
	"os"
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

// disk is the backlog on a disk that may be absent or fail. It is locked by its user.
type disk struct {
	sync.Mutex
	store *spool.Store
	name  string
	most  int64
	root  *os.Root
	log   *backlog.Log // nil while there is none
	retry time.Time

	written   int64  // by logs before this one
	unsynced  bool   // something was appended since the last sync that succeeded
	malformed uint64 // records that could not be parsed

	ahead []*entry // the next records after those that are being sent, by position
}

func (d *disk) init(n topology.Node, name string, most int64) {
	d.store, d.name, d.most = spool.NewStore(n.StoreDir, n.StoreMount), name, most
}

// open opens the backlog where it is not open, and closes it when the disk is gone.
func (d *disk) open(now time.Time) error {
	sp, err := d.store.Spool()
	if err != nil {
		return errors.Join(err, d.close())
	}
	if d.log != nil {
		return nil
	}
	if now.Before(d.retry) {
		return errors.New("the disk is tried again within a second")
	}
	d.retry = now.Add(reopenEvery)
	if d.root, err = sp.Folder(folder); err != nil {
		return err
	}
	if d.log, err = backlog.Open(d.root, d.name, backlog.Config{MaxBytes: d.most}); err != nil {
		d.log = nil
		return errors.Join(err, d.root.Close())
	}
	return nil
}

// close gives the backlog up.
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
	stored, err := d.log.Peek(0, records, bytes)
	if err != nil {
		return nil, fmt.Errorf("read backlog: %w", err)
	}
	var broken []backlog.Position
	for _, s := range stored {
		if e := d.takeAhead(s.Position); e != nil {
			list = append(list, e)
			continue
		}
		r, err := record.Parse(msg.Topic(s.Key), s.Payload)
		if err != nil {
			broken = append(broken, s.Position)
			continue
		}
		list = append(list, &entry{record: r, disk: s.Position})
	}
	if len(broken) > 0 {
		d.malformed += uint64(len(broken))
		err = d.log.Skip(broken...)
	}
	return list, err
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
		if r, err := record.Parse(msg.Topic(s.Key), s.Payload); err == nil {
			list = append(list, &entry{record: r, disk: s.Position})
		}
	}
	o.disk.Lock()
	defer o.disk.Unlock()
	if o.disk.log == log {
		o.disk.ahead = list
	}
}

// ack takes records out of the backlog.
func (d *disk) ack(positions []backlog.Position) error {
	if d.log == nil || len(positions) == 0 {
		return nil
	}
	if err := d.log.Ack(positions...); err != nil {
		return fmt.Errorf("note in the backlog what was acknowledged: %w", err)
	}
	return nil
}

// One append takes so many records and bytes at most.
const (
	appendRecords = 1000
	appendBytes   = 256 << 10
)

// write appends records and makes them durable. It returns how many are in the backlog, also with an
// error, and notes their positions.
func (d *disk) write(list []*entry, now time.Time) (n int, err error) {
	if err := d.open(now); err != nil {
		return 0, err
	}
	for n < len(list) && err == nil {
		part := firstPart(list[n:])
		if err = d.append(part); err == nil {
			n += len(part)
		}
	}
	d.unsynced = d.unsynced || n > 0
	if d.unsynced {
		err = errors.Join(err, d.sync())
	}
	if err != nil {
		return n, fmt.Errorf("write backlog: %w", err)
	}
	return n, nil
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
	d.unsynced = err != nil
	return err
}

// classOf says what is lost first: readings are.
func classOf(k msg.Kind) backlog.Class {
	if k == msg.KindReading {
		return backlog.Reading
	}
	return backlog.Event
}

// spoolLoop writes to disk what has waited too long, until ctx is done. trouble is told of each
// change between working and not.
func (o *outbox) spoolLoop(done <-chan struct{}, trouble func(error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		wait, work := o.spoolDue(time.Now(), last)
		if work {
			err := o.spool()
			trouble(err)
			if last = time.Now(); err == nil {
				continue
			}
			wait = reopenEvery
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-o.due:
		case <-done:
			return
		}
	}
}

// spoolDue is when records are to be written to disk next.
func (o *outbox) spoolDue(now, last time.Time) (wait time.Duration, work bool) {
	o.disk.Lock()
	behind, unsynced := o.disk.len() > 0, o.disk.unsynced
	o.disk.Unlock()
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

// spool writes all that waits to disk.
func (o *outbox) spool() error {
	o.disk.Lock()
	defer o.disk.Unlock()
	o.mu.Lock()
	list := make([]*entry, 0, len(o.waiting))
	for _, e := range o.waiting {
		if !e.done {
			list = append(list, e)
		}
	}
	o.mu.Unlock()
	if len(list) == 0 && !o.disk.unsynced {
		return nil
	}
	n, failed := o.disk.write(list, time.Now())
	var arrived []backlog.Position
	o.mu.Lock()
	for _, e := range list[:n] {
		if e.done { // acknowledged meanwhile
			arrived = append(arrived, e.disk)
			continue
		}
		o.tracks.settle(e.record.Topic(), e.span)
	}
	o.compact()
	o.mu.Unlock()
	signal(o.more)
	return errors.Join(failed, o.disk.ack(arrived))
}
