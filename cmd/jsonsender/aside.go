package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// maxAside bounds a file of refused records; the one before it is kept as well.
const maxAside = 1 << 20

// aside is the file of records that the receiver refused: one JSON object a line, as on the bus.
type aside struct {
	disk *disk
	lost func() // counts an older file that had to go
}

// fileOf is the file's name in the folder of the backlogs.
func fileOf(worker string) string { return worker + ".refused.jsonl" }

// add appends a record, durably.
func (a *aside) add(text []byte) (err error) {
	a.disk.Lock()
	defer a.disk.Unlock()
	if a.disk.log == nil {
		return errNoDisk
	}
	root, name := a.disk.root, fileOf(a.disk.name)
	if err := a.rotate(root, name); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(append(append([]byte(nil), text...), '\n')); err != nil {
		return err
	}
	return f.Sync()
}

// rotate begins a new file when one is full.
func (a *aside) rotate(root *os.Root, name string) error {
	st, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file (%s): remove it", name, st.Mode())
	case st.Size() < maxAside:
		return nil
	}
	if _, err := root.Lstat(name + ".1"); err == nil {
		a.lost()
	}
	return root.Rename(name, name+".1")
}
