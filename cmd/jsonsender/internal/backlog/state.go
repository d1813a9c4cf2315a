package backlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The state file is two slots that are written in turn, in place. Each holds
//
//	u32 CRC-32C of what follows, u32 length of the JSON, u64 number of the write, JSON
const (
	slotBytes  = 128 << 10
	slotHeader = 16
)

// state is what cannot be seen from the segments.
type state struct {
	Next    Position  `json:"next"`             // no record has had this position
	Floor   Position  `json:"floor"`            // all up to here are acknowledged or lost
	Acked   spans     `json:"acked,omitempty"`  // and these beyond
	Losses  []Loss    `json:"losses,omitempty"` // of all time
	Rewound uint64    `json:"rewound,omitempty"`
	Pending *rewrite  `json:"pending,omitempty"`
	Import  *transfer `json:"import,omitempty"`
}

// rewrite is a rewritten segment on its way. Its losses count once its file is there.
type rewrite struct {
	Seq    uint32 `json:"seq"`
	Losses []Loss `json:"losses"`
}

// transfer is a batch on its way from another log (Adopt).
type transfer struct {
	From   string   `json:"from"`
	Losses bool     `json:"losses"`       // the other log's losses are counted here
	At     Position `json:"at,omitempty"` // the batch begins here; 0 is none
	UpTo   Position `json:"up_to,omitempty"`
}

// stateFile writes the state. The slot of the last sync is never the one that is
// written to.
type stateFile struct {
	dir    *folder
	file   *os.File
	number uint64 // of the last write
	slot   int64  // that is written to
	dirty  bool   // since the last sync
	broken bool   // a write or sync failed: the file must be made anew
}

// parseSlot reads a slot of the state file.
func parseSlot(data []byte) (st state, number uint64, ok bool) {
	if len(data) < slotHeader {
		return state{}, 0, false
	}
	size := int64(binary.LittleEndian.Uint32(data[4:]))
	if size > int64(len(data))-slotHeader || binary.LittleEndian.Uint32(data) != checksum(data[4:slotHeader+size]) {
		return state{}, 0, false
	}
	if err := json.Unmarshal(data[slotHeader:slotHeader+size], &st); err != nil || !st.sound() {
		return state{}, 0, false
	}
	return st, binary.LittleEndian.Uint64(data[8:]), true
}

// sound refuses what no log wrote.
func (st *state) sound() bool {
	return st.Next > st.Floor && st.Next < maxPosition && st.Acked.sound(st.Floor)
}

// readState reads the newer intact slot; known is false where there is none.
func readState(dir *folder) (st state, number uint64, slot int64, known bool, err error) {
	data, _, err := dir.read(stateName)
	if errors.Is(err, fs.ErrNotExist) {
		return state{Next: 1}, 0, 0, false, nil
	}
	if err != nil {
		return state{}, 0, 0, false, err
	}
	for n := range int64(2) {
		part := data[min(n*slotBytes, int64(len(data))):min((n+1)*slotBytes, int64(len(data)))]
		if other, count, ok := parseSlot(part); ok && (!known || count > number) {
			st, number, slot, known = other, count, n, true
		}
	}
	if !known {
		st = state{Next: 1}
	}
	return st, number, slot, known, nil
}

// openState opens the file for writing where it is whole, and makes it otherwise.
func openState(dir *folder, number uint64, slot int64, known bool) (*stateFile, error) {
	s := &stateFile{dir: dir, number: number, slot: 1 - slot, broken: true}
	if info, err := dir.root.Lstat(stateName); err != nil || !known || info.Size() != 2*slotBytes {
		return s, nil
	}
	f, err := dir.open(stateName, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := fdatasync(f); err != nil { // what a killed process had no time for
		return nil, errors.Join(err, f.Close())
	}
	s.file, s.broken = f, false
	return s, nil
}

func (s *stateFile) encode(st *state) ([]byte, error) {
	text, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	if len(text) > slotBytes-slotHeader {
		return nil, fmt.Errorf("state of %d bytes: want at most %d", len(text), slotBytes-slotHeader)
	}
	slot := make([]byte, slotHeader, roundUp(int64(slotHeader+len(text)), pageBytes))
	slot = append(slot, text...)
	binary.LittleEndian.PutUint32(slot[4:], uint32(len(text)))
	binary.LittleEndian.PutUint64(slot[8:], s.number+1)
	binary.LittleEndian.PutUint32(slot, checksum(slot[4:]))
	return slot, nil
}

// write puts the state into the slot that is not the durable one.
func (s *stateFile) write(st *state) error {
	slot, err := s.encode(st)
	if err != nil {
		return err
	}
	if s.broken {
		return s.renew(slot)
	}
	if err := s.dir.writeAt(s.file, slot, s.slot*slotBytes); err != nil {
		s.broken = true
		return fmt.Errorf("write state: %w", err)
	}
	s.number++
	s.dirty = true
	return nil
}

// sync makes the last write durable. After a failed sync the kernel takes the pages
// for clean (fsync(2)), so the file is made anew.
func (s *stateFile) sync(st *state) error {
	if s.broken {
		return s.write(st)
	}
	if !s.dirty {
		return nil
	}
	if err := fdatasync(s.file); err != nil {
		s.broken = true
		return s.write(st)
	}
	s.dirty, s.slot = false, 1-s.slot
	return nil
}

// renew makes the file with one slot filled, durably, under its name.
func (s *stateFile) renew(slot []byte) error {
	f, err := s.dir.zero(stateName+newExt, 2*slotBytes)
	if err != nil {
		return err
	}
	err = s.dir.writeAt(f, slot, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.dir.rename(stateName+newExt, stateName)
	}
	if err == nil {
		err = s.dir.sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make state file: %w", err), f.Close())
	}
	if s.file != nil {
		_ = s.file.Close() // it has failed already
	}
	s.file, s.broken, s.dirty, s.slot = f, false, false, 1
	s.number++
	return nil
}

func (s *stateFile) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
