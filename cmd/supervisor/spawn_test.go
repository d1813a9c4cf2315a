package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Who is started by the supervisor may be woken a little late, with all that it
// starts itself.
func TestTimerSlackIsInherited(t *testing.T) {
	s := newSpawner()
	defer s.close()
	for what, cmd := range map[string]*exec.Cmd{
		"child":      exec.Command("cat", "/proc/self/timerslack_ns"),
		"grandchild": exec.Command("sh", "-c", "cat /proc/self/timerslack_ns; true"),
	} {
		var out []byte
		var err error
		s.do(func() { out, err = cmd.Output() })
		if got := strings.TrimSpace(string(out)); err != nil || got != "1000000" {
			t.Errorf("timer slack of a %s = %s ns, %v; want 1000000", what, got, err)
		}
	}
}
