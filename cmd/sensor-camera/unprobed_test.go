package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/perch-edge/perch/pkg/worker"
)

// A probe that takes too long says nothing about the file: the camera is tried again, and not held
// until its configuration changes.
func TestASlowProbeIsNoBadConfig(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Stream = map[string]StreamConfig{"video": {}}
	cfg.unprobed = fmt.Errorf("probe file:clip.mp4: no answer: %w", context.DeadlineExceeded)
	_, _, err := openFile(nil, cfg)
	if code := worker.ExitCode(err); code != worker.ExitTemporary || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("openFile() of a file that was not probed = %v, exit code %d; want %d", err, code, worker.ExitTemporary)
	}
}
