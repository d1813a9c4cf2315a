package backlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/lockfile"
)

// Adopt hands the backlog of a name to another; neither may be open. Where the other has
// none, the folder is renamed. Otherwise the records are appended behind the other's, which keeps
// the order within each. After a kill or an error it can be called again: each record is
// then there once. Nothing to adopt is no error.
func Adopt(root *os.Root, from, to string, cfg Config) error {
	if _, err := root.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := root.Stat(to); errors.Is(err, fs.ErrNotExist) {
		return adoptWhole(root, from, to)
	}
	if err := adoptRecords(root, from, to, cfg); err != nil {
		return fmt.Errorf("adopt backlog %s as %s: %w", from, to, err)
	}
	return nil
}

func adoptWhole(root *os.Root, from, to string) error {
	if lockfile.Held(root, from+"/"+lockName) {
		return fmt.Errorf("adopt backlog %s: %w", from, &lockfile.HeldError{Path: filepath.Join(root.Name(), from, lockName)})
	}
	if err := makeFolder(root, parent(to)); err != nil {
		return err
	}
	if err := root.Rename(from, to); err != nil {
		return fmt.Errorf("adopt backlog: %w", err)
	}
	return errors.Join(syncFolder(root, parent(to)), syncFolder(root, parent(from)))
}

func adoptRecords(root *os.Root, from, to string, cfg Config) error {
	source, err := Open(root, from, cfg)
	if err != nil {
		return err
	}
	target, err := Open(root, to, cfg)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	err = target.adopt(source, from)
	if err == nil {
		err = removeLog(source)
	}
	if err = errors.Join(err, source.Close()); err == nil {
		err = removeFolder(root, from)
	}
	if err == nil {
		target.state.Import, target.unwritten = nil, true
	}
	return errors.Join(err, target.Close())
}

// adopt moves the records of a log to this one, a block at a time. What is about to be
// appended is on disk before, so that a start after a kill can see whether it was.
func (l *Log) adopt(source *Log, from string) error {
	if im := l.state.Import; im == nil || im.From != from {
		l.state.Import = &transfer{From: from}
	} else if im.UpTo > 0 {
		if err := source.ackUpTo(im.UpTo); err != nil {
			return err
		}
	}
	if im := l.state.Import; !im.Losses {
		im.Losses = true
		l.lose(source.state.Losses...)
	}
	for {
		list, err := source.Peek(0, maxRecords, min(source.cfg.SegmentBytes, l.cfg.SegmentBytes)/2)
		if err != nil || len(list) == 0 {
			return err
		}
		im := l.state.Import
		im.At, im.UpTo, l.unwritten = l.state.Next, list[len(list)-1].Position, true
		if err := l.syncState(); err != nil {
			return err
		}
		if _, err := l.Append(list...); err != nil {
			return err
		}
		if err := l.Sync(); err != nil {
			return err
		}
		if err := source.ackUpTo(im.UpTo); err != nil {
			return err
		}
	}
}

// ackUpTo acknowledges all up to a position, durably.
func (l *Log) ackUpTo(last Position) error {
	for {
		list, err := l.Peek(0, maxRecords, l.cfg.SegmentBytes)
		if err != nil {
			return err
		}
		var positions []Position
		for _, e := range list {
			if e.Position <= last {
				positions = append(positions, e.Position)
			}
		}
		if len(positions) == 0 {
			return l.Sync()
		}
		if err := l.Ack(positions...); err != nil {
			return err
		}
	}
}

// settleImport decides at the start whether the batch that an Adopt had begun is in the
// log: later the log may have grown for other reasons.
func (l *Log) settleImport() {
	if im := l.state.Import; im != nil && im.At > 0 && l.state.Next <= im.At {
		im.UpTo, l.unwritten = 0, true
	}
	if im := l.state.Import; im != nil && im.At > 0 {
		im.At, l.unwritten = 0, true
	}
}

// removeLog removes a log's records, and at last what says that they are acknowledged.
func removeLog(l *Log) error {
	for _, ext := range []string{segmentExt, spareExt} {
		names, err := l.dir.names(ext)
		if err != nil {
			return err
		}
		for seq := range names {
			if err := l.dir.remove(fileName(seq, ext)); err != nil {
				return err
			}
		}
	}
	return l.dir.sync()
}

// removeFolder removes a log's folder with its state.
func removeFolder(root *os.Root, dir string) error {
	if err := root.Remove(dir + "/" + stateName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove backlog: %w", err)
	}
	if err := root.Remove(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) { // foreign files stay
		return fmt.Errorf("remove backlog: %w", err)
	}
	return syncFolder(root, parent(dir))
}
