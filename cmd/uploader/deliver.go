package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
	"github.com/perch-edge/perch/internal/uplink"
	"github.com/perch-edge/perch/pkg/msg"
)

// shutOutPause is how long a receiver that does not let us in is left alone, at
// least; at most twice as long. It does not grow: whoever mends the matter waits.
const shutOutPause = time.Minute

// deliver sends files until ctx is done.
func (u *uploader) deliver(ctx context.Context) {
	for {
		it := u.queue.take(ctx)
		if it == nil {
			return
		}
		what, after := u.attempt(ctx, it.id)
		u.queue.done(it, what, after)
	}
}

// attempt tries to send a file. What fails on this box and what fails at the
// receiver are two troubles, and do not hide each other.
func (u *uploader) attempt(ctx context.Context, id sidecar.ID) (outcome, time.Duration) {
	what, after, err := u.try(ctx, id)
	switch what {
	case troubled:
		u.w.TroubleWith(theStore, err)
	case settled, setAside, notTaken, gone:
		u.w.TroubleWith(theStore, nil)
	}
	return what, after
}

// try is an attempt; its error is one of this box.
func (u *uploader) try(ctx context.Context, id sidecar.ID) (outcome, time.Duration, error) {
	held, err := u.hold(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gone, 0, nil
	case errors.Is(err, spool.ErrHeld), errors.Is(err, spool.ErrNotMounted): // of which scan tells
		return postponed, 0, nil
	case err != nil:
		return troubled, 0, err
	}
	defer func() { _ = held.Release() }() // it was only read
	if left, err := u.prepare(held); err != nil {
		return troubled, 0, err
	} else if left {
		return setAside, 0, nil
	}
	p, err := u.pack(held)
	if err != nil {
		return troubled, 0, err
	}
	said, err := u.to.send(ctx, p)
	switch {
	case err != nil && ctx.Err() != nil:
		return stopped, 0, nil
	case errors.As(err, new(*ownError)):
		return troubled, 0, err
	case err != nil:
		return u.failed(held, p, failureOf(err))
	}
	u.w.TroubleWith(theReceiver, nil)
	if err := u.sent(held, said); err != nil {
		return troubled, 0, err
	}
	return settled, 0, nil
}

// ownError is a failure of this box while it speaks with the receiver, of which
// it says nothing.
type ownError struct{ error }

func (e *ownError) Unwrap() error { return e.error }

// ours marks an error as one of this box.
func ours(err error) error {
	if err == nil {
		return nil
	}
	return &ownError{err}
}

func (u *uploader) hold(id sidecar.ID) (*spool.Held, error) {
	sp, err := u.spool()
	if err != nil {
		return nil, err
	}
	return sp.Hold(spool.Ready, id)
}

// prepare corrects a file's time, as far as it is known by now, and tests that
// its bytes are those that were written. It says whether the file has left
// ready/.
func (u *uploader) prepare(held *spool.Held) (left bool, err error) {
	if side := held.Sidecar(); u.anchors.Correct(side) {
		if err := held.Amend(side); err != nil {
			return false, err
		}
		u.w.Counter("time_corrected_files").Add(1)
	}
	err = held.Verify(func() {})
	if !errors.Is(err, spool.ErrDamaged) {
		return false, err
	}
	u.w.Counter("damaged_files").Add(1)
	u.w.Log.Error("file is damaged", "file", held.Sidecar().Name, "err", err)
	return true, u.move(held, spool.Quarantine, held.Sidecar(), "not sent: "+err.Error())
}

// move moves a file on and says so on the bus.
func (u *uploader) move(held *spool.Held, to spool.State, side *sidecar.Sidecar, reason string) error {
	side.Add(u.files.Event(string(to), reason))
	if err := held.Move(to, side); err != nil && held.State() != to {
		return err
	} else if err != nil { // it is there, and its old sidecar is left to recovery
		u.w.Log.Warn("after the move", "file", side.Name, "err", err)
	}
	u.files.Tell(side)
	return nil
}

// pack makes a file and its sidecar ready to be sent. The sidecar goes as it is
// before the upload, without what is between this box and one receiver.
func (u *uploader) pack(held *spool.Held) (*parcel, error) {
	side := held.Sidecar()
	p := &parcel{upload: sidecar.Upload{To: u.cfg.To.String()}}
	if side.Upload != nil && side.Upload.To == p.upload.To {
		p.upload = *side.Upload
	}
	p.keep = func(up sidecar.Upload) error {
		p.upload = up
		side := held.Sidecar()
		side.Upload = &up
		return ours(held.Amend(side))
	}
	p.file = object{name: side.Name, key: string(side.ID), media: side.Media, bytes: side.Bytes, sum: side.SHA256, from: held.File(), once: true}
	side.Upload = nil
	text, err := side.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	name := string(side.ID) + ".json"
	p.note = object{name: name, key: name, media: sidecarMedia, bytes: int64(len(text)), sum: hex.EncodeToString(sum[:]), from: bytes.NewReader(text)}
	return p, nil
}

// sent writes the receipt down, durably, before anybody hears of it.
func (u *uploader) sent(held *spool.Held, said word) error {
	side, now := held.Sidecar(), u.w.Now()
	side.Upload = nil
	side.Receipt = &sidecar.Receipt{To: u.cfg.To.String(), Key: side.Name, Status: said.status, Proof: said.by, Digest: said.digest, Tag: said.tag,
		Time: msg.Time{Time: now.Wall}, BootNS: int64(now.Boot), BootID: u.w.BootID(), Synced: now.Synced}
	if err := u.move(held, spool.Sent, side, fmt.Sprintf("sent to %s: %s", u.cfg.To, said.proof)); err != nil {
		return err
	}
	u.w.Counter("sent_files").Add(1)
	u.w.Counter("sent_bytes").Add(int(side.Bytes))
	u.w.Log.Debug("sent", "file", side.Name, "bytes", side.Bytes, "proof", said.proof)
	return nil
}

// failed deals with an attempt that failed at the receiver.
func (u *uploader) failed(held *spool.Held, p *parcel, f *failure) (outcome, time.Duration, error) {
	switch f.verdict {
	case uplink.Refused:
		return u.refused(held, p, f)
	case uplink.Denied:
		u.w.Counter("denied_attempts").Add(1)
		u.w.TroubleWith(theReceiver, fmt.Errorf("nothing can be sent to %s: %w", u.cfg.To, f))
		return shutOut, shutOutPause + rand.N(shutOutPause) + f.after, nil
	}
	u.w.Counter("failed_attempts").Add(1)
	u.w.Log.Debug("attempt failed", "file", p.file.name, "err", f)
	u.w.TroubleWith(theReceiver, fmt.Errorf("send to %s: %w", u.cfg.To, f))
	return failed, f.after, nil
}

// refused counts a refusal in the sidecar, and gives the file up after too many.
func (u *uploader) refused(held *spool.Held, p *parcel, f *failure) (outcome, time.Duration, error) {
	u.w.Counter("refused_attempts").Add(1)
	u.w.Log.Warn("file refused", "file", p.file.name, "attempt", p.upload.Attempts+1, "of", u.cfg.Attempts, "err", f)
	u.w.TroubleWith(theReceiver, nil)
	p.upload.Attempts++
	if p.upload.Attempts < u.cfg.Attempts {
		if err := p.keep(p.upload); err != nil {
			return troubled, 0, err
		}
		return notTaken, 0, nil
	}
	side := held.Sidecar()
	side.Upload = &p.upload
	if err := u.move(held, spool.Rejected, side, fmt.Sprintf("rejected: attempt %d to send it to %s: %v", p.upload.Attempts, u.cfg.To, f)); err != nil {
		return troubled, 0, err
	}
	u.w.Counter("rejected_files").Add(1)
	u.rejected.Add(1)
	return settled, 0, nil
}
