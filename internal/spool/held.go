package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/msg"
)

// Held is a file in a state that this process alone may move on. It is for one
// goroutine, and must be released.
type Held struct {
	spool *Spool
	state State
	left  State // where it came from, and may have left a sidecar
	file  *os.File
	side  *sidecar.Sidecar
}

// Hold takes the file of that id in a state. It fails with fs.ErrNotExist where
// there is none (any more), and with ErrHeld where another process has it.
func (s *Spool) Hold(state State, id sidecar.ID) (*Held, error) {
	side, err := s.Sidecar(state, id)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", id, err)
	}
	f, err := s.openHeld(path.Join(string(state), side.Name), os.O_RDONLY)
	if err == nil {
		side, err = s.Sidecar(state, id) // as it is now that nobody changes it
	}
	if err != nil {
		err = fmt.Errorf("hold %s: %w", id, err)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return &Held{spool: s, state: state, left: state, file: f, side: side}, nil
}

// Release lets others have the file. It is safe to call it twice.
func (h *Held) Release() error {
	if h.file == nil {
		return nil
	}
	f := h.file
	h.file = nil
	return f.Close()
}

// State is where the file is.
func (h *Held) State() State { return h.state }

// File is the open file, to be read; its place in the file is the caller's.
func (h *Held) File() *os.File { return h.file }

// Sidecar is a copy of the file's sidecar, to be changed and given to Move.
func (h *Held) Sidecar() *sidecar.Sidecar { return h.side.Clone() }

// step does something with the held file and a sidecar, which must be its own.
func (h *Held) step(verb string, side *sidecar.Sidecar, do func() error) error {
	var err error
	if a, b := h.side, side; a.ID != b.ID || a.Name != b.Name || a.Bytes != b.Bytes || a.SHA256 != b.SHA256 {
		err = fmt.Errorf("the sidecar is of %s with %d bytes and sha256 %s; want %d bytes and %s", b.Name, b.Bytes, b.SHA256, a.Bytes, a.SHA256)
	} else {
		err = do()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, h.side.Name, err)
	}
	return nil
}

// Amend replaces the file's sidecar, where it is.
func (h *Held) Amend(side *sidecar.Sidecar) error {
	return h.step("amend sidecar of", side, func() error { return h.amend(side) })
}

func (h *Held) amend(side *sidecar.Sidecar) error {
	text, err := side.Encode()
	if err == nil {
		err = h.spool.writeSidecar(h.state, side.ID, text)
	}
	if err == nil {
		h.side = side
	}
	return err
}

// Move brings the file to another state of its spool, with a sidecar that
// tells of it. It fails with fs.ErrExist where the state has that file. Where
// it fails after the file has moved, State says so, and to call it again makes
// that durable.
func (h *Held) Move(to State, side *sidecar.Sidecar) error {
	return h.step("move", side, func() error { return h.move(to, side) })
}

func (h *Held) move(to State, side *sidecar.Sidecar) error {
	if h.state == to { // and its folder was not synced then, as it is now
		if err := h.amend(side); err != nil {
			return err
		}
	} else {
		moved, err := h.spool.place(path.Join(string(h.state), side.Name), to, side)
		if moved {
			h.state, h.left, h.side = to, h.state, side
		}
		if err != nil {
			return err
		}
	}
	if h.left == to {
		return nil
	}
	return h.spool.unlink(sidecarIn(h.left, side.ID))
}

// ErrLitter says that a file is gone, and its sidecar is left for Recover to remove.
var ErrLitter = errors.New("its sidecar is left")

// Remove deletes the file and then its sidecar, and releases it. It fails with
// ErrLitter where that has come half-way, and can be called again.
func (h *Held) Remove() error {
	return h.step("remove", h.side, h.remove)
}

func (h *Held) remove() error {
	if err := h.spool.unlink(path.Join(string(h.state), h.side.Name)); err != nil {
		return err
	}
	if err := h.spool.unlink(sidecarIn(h.state, h.side.ID)); err != nil {
		return fmt.Errorf("%w: %w", ErrLitter, err)
	}
	h.spool.fillReserve()
	return h.Release()
}

// Verify reads the file. It fails with ErrDamaged when its bytes are not those
// that its sidecar tells of. alive is called now and then.
func (h *Held) Verify(alive func()) error {
	return h.step("verify", h.side, func() error { return verify(h.file, h.side, alive) })
}

// MoveTo brings the file to a state of another spool: copied, hashed and
// synced there under another name, renamed, and only then removed here; then it
// is released. It fails with ErrDamaged when its bytes are not those that its
// sidecar tells of. As long as it fails the file stays, with ErrLitter its
// sidecar alone, and it can be called again. alive is called now and then.
func (h *Held) MoveTo(dst *Spool, to State, side *sidecar.Sidecar, alive func()) error {
	return h.step("move to disk", side, func() error {
		there, err := dst.arrived(side, alive)
		if err == nil && !there {
			err = dst.bring(h.file, to, side, alive)
		}
		if err != nil {
			return err
		}
		return h.remove()
	})
}

// Settle removes the file where another spool has a good copy of it already, in
// whatever state: a move to there was interrupted after its last step but one.
// It says whether that was so; then the file is released. It fails as Remove does.
func (h *Held) Settle(dst *Spool, alive func()) (bool, error) {
	there, err := dst.arrived(h.side, alive)
	if err != nil {
		return false, fmt.Errorf("settle %s: %w", h.side.Name, err)
	}
	if !there {
		return false, nil
	}
	return true, h.Remove()
}

// bring copies a file into a state.
func (s *Spool) bring(from *os.File, to State, side *sidecar.Sidecar, alive func()) error {
	part := unfinishedCopy(side.ID)
	f, err := s.createHeld(part)
	if err != nil {
		return err
	}
	if err = s.copyInto(f, from, side, alive); err == nil {
		_, err = s.place(part, to, side)
	}
	if err != nil {
		return errors.Join(err, s.unlink(part), f.Close())
	}
	return f.Close()
}

// arrived says whether the spool has a good copy of a file already: a move was
// interrupted after its last step but one, and the file may have gone on since.
func (s *Spool) arrived(side *sidecar.Sidecar, alive func()) (bool, error) {
	for _, state := range Stages() {
		if state == Quarantine {
			continue
		}
		if good, err := s.settle(state, side, alive); good || err != nil {
			return good, err
		}
	}
	return false, nil
}

// settle makes a good copy that is in a state durable. A bad one goes to
// quarantine.
func (s *Spool) settle(state State, side *sidecar.Sidecar, alive func()) (good bool, err error) {
	file := path.Join(string(state), side.Name)
	f, err := s.openHeld(file, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := verify(f, side, alive); errors.Is(err, ErrDamaged) {
		return false, s.isolate(file, state, side, err)
	} else if err != nil {
		return false, err
	}
	if _, err := s.Sidecar(state, side.ID); !lacking(err) {
		return err == nil, errors.Join(err, s.sync(string(state)))
	}
	text, err := side.Encode()
	if err == nil {
		err = s.writeSidecar(state, side.ID, text)
	}
	return err == nil, err
}

// isolate moves a bad copy to quarantine, with a sidecar that tells more than the
// one beside it: killed in between, Recover goes on.
func (s *Spool) isolate(file string, state State, side *sidecar.Sidecar, why error) error {
	own, err := s.Sidecar(state, side.ID)
	if lacking(err) {
		own, err = side.Clone(), nil
	}
	if err != nil {
		return err
	}
	// Nobody has said what time it is, or whether the wall clock is right.
	own.Add(sidecar.Event{State: string(Quarantine), Time: msg.Time{Time: time.Now().UTC()}, Reason: "a copy was bad: " + why.Error()})
	if _, err = s.place(file, Quarantine, own); err != nil {
		return err
	}
	return s.unlink(sidecarIn(state, side.ID))
}
