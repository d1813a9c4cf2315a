package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/worker"
)

const (
	// lossesAge is how long a losses file is written to before it is to be sent.
	lossesAge = 5 * time.Minute
	// lossesBytes ends one earlier. So much room is taken when it begins: it is
	// written to when the disk is full.
	lossesBytes = 256 << 10
)

// losses is the losses file that is being written, in work/ of the store.
type losses struct {
	w     *worker.Worker
	files *worker.Files
	sp    *spool.Spool
	*draft
	n    uint64 // lines of this run
	left bool   // files in work/ are to be taken up
}

// draft is an open losses file.
type draft struct {
	file        *os.File
	id          sidecar.ID
	size        int64
	lines       uint64
	first, last sidecar.Moment
	begun       time.Time // with its first line
}

// open takes up what earlier runs left, and begins a file where one may be
// needed: when the disk is full it is too late to. It can be called again.
func (l *losses) open(sp *spool.Spool, needed bool) error {
	if l.sp != sp {
		l.sp, l.left = sp, true
	}
	var err error
	if l.left {
		err = l.takeUpAll()
		l.left = err != nil
	}
	if needed {
		err = errors.Join(err, l.begin())
	}
	return err
}

func (l *losses) takeUpAll() error {
	names, err := l.sp.List(spool.Work, l.w.Name())
	errs := []error{err}
	for _, name := range names {
		if !strings.HasSuffix(name, sidecar.LossesExt) {
			continue
		}
		if err := l.takeUp(name); err != nil {
			errs = append(errs, fmt.Errorf("take up %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (l *losses) begin() error {
	if l.draft != nil {
		return nil
	}
	id := l.files.NewID(l.moment())
	f, err := l.sp.Create(string(id) + sidecar.LossesExt)
	if err != nil {
		return err
	}
	// Where no room can be taken ahead, lines take it one by one.
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, lossesBytes)
	if err := l.sp.SyncFolder(spool.Work); err != nil {
		l.left = true // should it be there to stay
		return errors.Join(err, f.Close(), l.sp.Remove(string(id)+sidecar.LossesExt))
	}
	l.draft = &draft{file: f, id: id}
	return nil
}

func (l *losses) moment() sidecar.Moment {
	now := l.w.Now()
	return sidecar.Moment{Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: l.w.BootID(), Synced: now.Synced,
		Epoch: l.w.Epoch(), Seq: msg.Seq(l.n)}
}

// add tells of files that are about to be deleted. When it returns nil the
// lines are durable.
func (l *losses) add(lost []going) error {
	if err := l.begin(); err != nil {
		return fmt.Errorf("tell of losses: %w", err)
	}
	var lines bytes.Buffer
	first := l.moment()
	for _, g := range lost {
		of := sidecar.LossOf(g.side, string(g.state), l.moment())
		line, err := of.Encode()
		if err != nil {
			return fmt.Errorf("tell of losses: %w", err)
		}
		lines.Write(line)
		l.n++
	}
	_, err := l.file.WriteAt(lines.Bytes(), l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil { // what follows size is in doubt, and so is this file
		return errors.Join(fmt.Errorf("tell of losses: %w", err), l.giveUp())
	}
	if l.lines == 0 {
		l.first, l.begun = first, time.Now()
	}
	l.size, l.lines, l.last = l.size+int64(lines.Len()), l.lines+uint64(len(lost)), l.moment()
	return nil
}

// giveUp ends a file that the disk failed at its last line that is known to be
// safe: nothing more is written to it. It is taken up like one of an earlier run.
func (l *losses) giveUp() error {
	d := l.draft
	l.draft, l.left = nil, true
	return errors.Join(d.file.Truncate(d.size), d.file.Close())
}

// due says when the file is to be completed; zero is never.
func (l *losses) due() time.Time {
	if l.draft == nil || l.lines == 0 {
		return time.Time{}
	}
	if l.size >= lossesBytes {
		return l.begun
	}
	return l.begun.Add(lossesAge)
}

// turn completes the file, so that it is sent, and begins the next.
func (l *losses) turn() error {
	if err := l.finish(); err != nil {
		return err
	}
	return l.begin()
}

// finish completes the file, or removes it where nothing was lost. One that
// cannot be completed is given up.
func (l *losses) finish() error {
	if l.draft == nil {
		return nil
	}
	if err := l.complete(l.draft); err != nil {
		return errors.Join(err, l.giveUp())
	}
	f := l.file
	l.draft = nil
	return f.Close()
}

// end completes the file, and those that were given up, so that they are sent.
func (l *losses) end() error {
	err := l.finish()
	if l.sp != nil && l.left {
		err = errors.Join(err, l.takeUpAll())
	}
	return err
}

func (l *losses) complete(d *draft) error {
	if d.lines == 0 {
		return l.sp.Discard(string(d.id)+sidecar.LossesExt, spool.Ready)
	}
	side := l.files.Describe(d.id, sidecar.LossesExt, sidecar.LossesMedia, msg.TopicOf(msg.KindFile, msg.Source(l.w.Name()), "files"), d.first, d.last, d.lines)
	side.Add(l.files.Event(string(spool.Ready), fmt.Sprintf("tells of %d files that were given up", d.lines)))
	if err := d.file.Truncate(d.size); err != nil { // and so give back what was not needed
		return err
	}
	if err := l.sp.Complete(d.file, spool.Ready, side); err != nil {
		return err
	}
	l.w.Counter("losses_files").Add(1)
	l.files.Tell(side)
	return nil
}

// leave closes a file of a disk that is gone. Should that come back, the file
// is taken up.
func (l *losses) leave() {
	if l.draft != nil {
		_ = l.file.Close() // what was told is durable
	}
	l.draft, l.sp = nil, nil
}

// takeUp completes a file that an earlier run left, as far as its lines are
// whole.
func (l *losses) takeUp(name string) error {
	f, err := l.sp.Reopen(name)
	if errors.Is(err, spool.ErrHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	d := &draft{file: f, id: sidecar.ID(strings.TrimSuffix(name, sidecar.LossesExt))}
	if err = d.read(); err == nil {
		err = l.complete(d)
	}
	if errors.Is(err, spool.ErrDamaged) { // the disk has lost what it had taken
		l.w.Counter("quarantined_files").Add(1)
		l.w.Log.Error("set losses file aside", "file", name, "err", err)
		err = l.sp.SetAside(name)
	}
	return errors.Join(err, f.Close())
}

// read finds a file's whole lines.
func (d *draft) read() error {
	in := bufio.NewReader(d.file)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil {
			return nil
		}
		of, err := sidecar.DecodeLoss(line)
		if err != nil {
			return nil // torn
		}
		if d.lines++; d.lines == 1 {
			d.first = of.Moment
		}
		d.last, d.size = of.Moment, d.size+int64(len(line))
	}
}
