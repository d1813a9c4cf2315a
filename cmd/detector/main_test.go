package main

import (
	"os"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
)

// TestMain lets the test binary be the program itself.
func TestMain(m *testing.M) {
	boxtest.Main(m, map[string]func(){"detector": main})
}

func TestScripts(t *testing.T) { boxtest.Scripts(t) }

// testdata is the folder of the test data from outside.
func testdata(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PERCH_TESTDATA")
	if dir == "" {
		t.Skip("PERCH_TESTDATA names no folder of test data")
	}
	return dir
}
