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
	return compile(ctx, dir, "peer", peerSource, "-lzmq", "libzmq3-dev")
}

// compile makes a C program in dir, linked with one library; pkg is Debian's
// package of its headers.
func compile(ctx context.Context, dir, name string, text []byte, library, pkg string) (string, error) {
	source, program := filepath.Join(dir, name+".c"), filepath.Join(dir, name)
	if err := os.WriteFile(source, text, 0o600); err != nil {
		return "", fmt.Errorf("write %s.c: %w", name, err)
	}
	out, err := exec.CommandContext(ctx, "cc", "-O2", "-o", program, source, library).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile %s.c (Debian: gcc %s): %w\n%s", name, pkg, err, out)
	}
	return program, nil
}
