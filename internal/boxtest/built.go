package boxtest

import (
	"os"
	"os/exec"
	"testing"
)

// Built is a folder that holds these programs of cmd/, as users build them: the
// one that PERCH_BIN names, where "make test" has built all of them, or a new one.
func Built(t testing.TB, programs ...string) string {
	t.Helper()
	if dir := os.Getenv("PERCH_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	args := []string{"build", "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "github.com/perch-edge/perch/cmd/"+p)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
	return dir
}
