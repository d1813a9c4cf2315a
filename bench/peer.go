package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed testdata/peer.c
var peerSource []byte

// compilePeer makes the C program that the ring is measured against.
func compilePeer(ctx context.Context, dir string) (string, error) {
	source, program := filepath.Join(dir, "peer.c"), filepath.Join(dir, "peer")
	if err := os.WriteFile(source, peerSource, 0o600); err != nil {
		return "", fmt.Errorf("write peer.c: %w", err)
	}
	out, err := exec.CommandContext(ctx, "cc", "-O2", "-o", program, source, "-lzmq").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile peer.c with libzmq (Debian: gcc libzmq3-dev): %w\n%s", err, out)
	}
	return program, nil
}
