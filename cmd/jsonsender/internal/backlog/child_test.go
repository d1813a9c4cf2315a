package backlog

import (
	"fmt"
	"os"
)

// runChild runs what a test binary does as another program.
func runChild(do func(args []string) error) {
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
func workChild(args []string) error  { return nil }
func trialChild(args []string) error { return nil }
