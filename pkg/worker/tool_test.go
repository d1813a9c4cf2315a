package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/pkg/topology"
)

// greet is a verb that ends as its flag says.
type greet struct {
	End string `enum:"well,gone,later,told,badly,said,wrong" default:"well"`
}

func (g *greet) Run(ctx context.Context, to Streams) error {
	if _, err := io.WriteString(to.Out, "hello\n"); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	switch g.End {
	case "later":
		return Temporary(errors.New("nobody is there"))
	case "told":
		return context.Canceled
	case "badly":
		return errors.New("it broke")
	case "said":
		return Said(ExitFailed)
	case "gone":
		return Unavailable(errors.New("nobody is here"))
	case "wrong":
		return topology.Problems{{File: "box.toml", Line: 3, Message: "bad"}}
	}
	return nil
}

// closed is an output whose reader went away.
type closed struct{}

func (closed) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
}

func TestTool(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"greet", 0, "hello\n", ""},
		{"greet --end later", 75, "hello\n", "box: nobody is there\n"},
		{"greet --end told", 0, "hello\n", ""},
		{"greet --end badly", 1, "hello\n", "box: it broke\n"},
		{"greet --end said", 1, "hello\n", ""},
		{"greet --end gone", 69, "hello\n", "box: nobody is here\n"},
		{"greet --end wrong", 78, "hello\n", "box.toml:3: bad\n"},
		{"greet --end so", 78, "", `--end must be one of`},
		{"greeet", 78, "", `box: unknown verb "greeet"; did you mean "greet"?; box --help lists the verbs and flags`},
		{"greet it", 78, "", "unexpected argument it"},
		{"", 78, "", `expected "greet"`},
		{"--version", 0, "box ", ""},
		{"greet --help", 0, "Usage: box greet", ""},
	} {
		var stdout, stderr bytes.Buffer
		verbs := struct {
			Greet greet `cmd:"" help:"Say hello."`
		}{}
		tool := Tool{Name: "box", Summary: "Greets.", Verbs: &verbs}
		if code := tool.main(strings.Fields(c.args), &stdout, &stderr); code != c.code {
			t.Errorf("box %s: exit code %d; want %d", c.args, code, c.code)
		}
		if !strings.HasPrefix(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
			t.Errorf("box %s: printed %q and %q; want %q and %q", c.args, &stdout, &stderr, c.stdout, c.stderr)
		}
	}
}

func TestToolWhoseAnswerNobodyReads(t *testing.T) {
	verbs := struct {
		Greet greet `cmd:""`
	}{}
	var stderr bytes.Buffer
	if code := (Tool{Name: "box", Verbs: &verbs}).main([]string{"greet"}, closed{}, &stderr); code != ExitDone || stderr.Len() > 0 {
		t.Errorf("exit code %d and %q on a closed pipe; want 0 and nothing", code, &stderr)
	}
}
