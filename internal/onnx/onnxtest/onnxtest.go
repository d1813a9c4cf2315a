// Package onnxtest tells tests where ONNX Runtime is, and skips those that want it
// where it is not.
//
//	PERCH_ONNXRUNTIME, lib/ of the repository ("make setup"), the usual places --> Library(t)
package onnxtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/perch-edge/perch/internal/onnx"
)

// Library is the path of ONNX Runtime. From then on it is in the environment of
// what the tests start, which may run in parallel. The test is skipped where there
// is none.
func Library(t testing.TB) string {
	t.Helper()
	path, err := onnx.Find(inRepository(t))
	if err != nil {
		path, err = onnx.Find("")
	}
	if err != nil {
		t.Skip(err)
	}
	if err := os.Setenv(onnx.Variable, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// inRepository is where "make setup" puts it; empty where the environment names
// another one.
func inRepository(t testing.TB) string {
	t.Helper()
	if os.Getenv(onnx.Variable) != "" {
		return ""
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "lib", "libonnxruntime.so.1")
		}
	}
	return ""
}

// Runtime loads the library for the time of the test.
func Runtime(t testing.TB) *onnx.Runtime {
	t.Helper()
	r, err := onnx.Load(Library(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
