package msg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/perch-edge/perch/internal/lockfile"
	"github.com/perch-edge/perch/pkg/shm"
)

// EndpointInfo is an endpoint as its run folder shows it.
type EndpointInfo struct {
	Endpoint string
	Source   Source
	Frames   Stream // of frames; empty for all other kinds
	Live     bool   // a process holds its lock; without one its socket was left behind
	PID      int
}

// Endpoints lists the sockets in a run folder, by name, without touching them.
// It fails with fs.ErrNotExist where there is no such folder.
func Endpoints(runDir string) ([]EndpointInfo, error) {
	root, err := os.OpenRoot(runDir)
	if err != nil {
		return nil, fmt.Errorf("open run folder: %w", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list endpoints in %s: %w", runDir, err)
	}
	var list []EndpointInfo
	for _, e := range entries {
		endpoint := "ipc://" + filepath.Join(runDir, e.Name())
		_, source, frames, err := ParseEndpoint(endpoint)
		if err != nil || e.Type() != fs.ModeSocket {
			continue // locks, and what is not ours
		}
		pid, live := lockfile.Holder(root, e.Name()+".lock")
		list = append(list, EndpointInfo{Endpoint: endpoint, Source: source, Frames: frames, Live: live, PID: pid})
	}
	return list, nil
}

// StreamInfo is a stream as its ring shows it: a history of messages, or, with
// a geometry, frames.
type StreamInfo struct {
	Topic    Topic
	Node     string
	BootID   string
	Geometry *Geometry
	Ring     shm.Status
}

// Streams lists the rings in a folder, by name, without taking part in any.
// Next to those it can read it returns what is wrong with the others; where
// there is no such folder it fails with fs.ErrNotExist.
func Streams(shmDir string) ([]StreamInfo, error) {
	if _, err := os.Stat(shmDir); err != nil { // OpenDir would make it
		return nil, fmt.Errorf("open ring folder: %w", err)
	}
	dir, err := shm.OpenDir(shmDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Rings()
	if err != nil {
		return nil, err
	}
	var list []StreamInfo
	var errs []error
	for _, name := range names {
		ring, err := dir.Status(name)
		if errors.Is(err, shm.ErrNoRing) {
			continue // it ended between the two looks, or is being made
		}
		var m ringMeta
		if err == nil {
			m, err = decodeMeta(name, ring.Meta)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, StreamInfo{Topic: m.Topic, Node: m.Node, BootID: m.BootID, Geometry: m.Geometry, Ring: ring})
	}
	return list, errors.Join(errs...)
}
