package e2e

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/topology"
)

var update = flag.Bool("update", false, "write docs/TOPOLOGY.md")

const generatedMark = `<!-- generated from here on by "make docs" -->` + "\n"

// The keys in docs/TOPOLOGY.md are what the programs print, to the letter.
func TestTopologyDocument(t *testing.T) {
	const path = "../docs/TOPOLOGY.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := strings.Cut(string(text), generatedMark)
	if !ok {
		t.Fatalf("%s has no line %q", path, generatedMark)
	}
	want := intro + generatedMark + generated(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what the programs say; run make docs", path)
	}
}

func generated(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n## node\n\n```toml\n" + topology.ExampleNode() + "```\n")
	b.WriteString("\n## job\n\nThe keys that a job has beside those of its program:\n\n```toml\n" +
		topology.Example(topology.Job, "NAME", "PROGRAM", &struct{}{}) + "```\n")
	for _, role := range []string{"[sensor.", "[worker.", "[job."} {
		for _, program := range workers(t) {
			out, err := exec.Command(filepath.Join(bin, program), "--example").Output()
			if err != nil {
				t.Fatalf("%s --example: %v", program, err)
			}
			if strings.HasPrefix(string(out), role) {
				b.WriteString("\n## " + program + "\n\n```toml\n" + string(out) + "```\n")
			}
		}
	}
	return b.String()
}

// workers lists the programs under cmd/ that are workers.
func workers(t *testing.T) (names []string) {
	t.Helper()
	folders, err := os.ReadDir("../cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.Name() != "supervisor" && f.Name() != "tap" {
			names = append(names, f.Name())
		}
	}
	return names
}
