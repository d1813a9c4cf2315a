package main

import (
	"fmt"
	"os"
	"syscall"
)

// fileID tells a file from another one that took its name.
type fileID struct {
	dev uint64
	ino uint64
}

// idOf does not follow a link: a socket or folder that is one is another's.
func idOf(path string) (fileID, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return fileID{}, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("%s: no inode number", path)
	}
	return fileID{uint64(sys.Dev), sys.Ino}, nil //nolint:unconvert // of 32 bits elsewhere
}
