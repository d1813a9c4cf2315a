package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/version"
	"github.com/perch-edge/perch/pkg/topology"
)

// Tool is a program that is no worker: it has verbs, for people and scripts.
type Tool struct {
	Name    string
	Summary string // for --help
	// Verbs points to a kong grammar (a struct with tags). Each verb has the
	// method Run(context.Context, Streams) error.
	Verbs any
}

// Streams are where a verb writes. When nobody reads Out any more, writing
// fails and the tool ends quietly with 0: "tool verb | head -1" is no failure.
type Streams struct {
	Out io.Writer // the answer
	Err io.Writer // what people should know beside it
	// The terminals behind them; nil where they are none.
	OutTerm, ErrTerm *os.File
}

// Main runs the verb that the command line asks for and ends the process, with
// the codes of all programs. Its context ends with the first SIGINT or SIGTERM.
// Problems of a topology are printed as they are, FILE:LINE first, and every
// other error with the tool's name before it; of Said, nothing.
func (t Tool) Main() {
	failPipes()
	os.Exit(t.main(os.Args[1:], os.Stdout, os.Stderr))
}

// failPipes lets a write that nobody reads any more fail with EPIPE (os/signal).
func failPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

func (t Tool) main(args []string, stdout, stderr io.Writer) int {
	done := -1
	flags := struct {
		Version kong.VersionFlag `help:"Print the version, and stop."`
	}{}
	parser, err := kong.New(&flags, kong.Name(t.Name), kong.Description(t.Summary), kong.Writers(stdout, stderr), kong.Embed(t.Verbs),
		kong.Vars{"version": t.Name + " " + version.String()}, kong.Exit(func(code int) { done = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		panic("worker: flags: " + err.Error())
	}
	call, err := parser.Parse(args)
	if done >= 0 {
		return done // --help or --version has been answered
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v; %s --help lists the verbs and flags\n", t.Name, unknownVerb(parser, args, err), t.Name)
		return ExitConfig
	}
	ctx, stop := signals()
	defer stop()
	call.BindTo(ctx, (*context.Context)(nil))
	err = call.Run(streams(stdout, stderr))
	if errors.Is(err, errUnread) {
		return ExitDone
	}
	code, problems := ExitCode(err), topology.Problems(nil)
	switch {
	case code == ExitDone || said(err):
	case errors.As(err, &problems):
		fmt.Fprintln(stderr, problems)
	default:
		fmt.Fprintf(stderr, "%s: %v\n", t.Name, err)
	}
	return code
}

// terminal is the terminal behind a writer; nil where it is none.
func terminal(w io.Writer) *os.File {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return file
}

// unknownVerb says of a mistyped verb which one was meant.
func unknownVerb(parser *kong.Kong, args []string, err error) error {
	var verbs []string
	for _, n := range parser.Model.Children {
		verbs = append(verbs, n.Name)
		if len(args) > 0 && n.Name == args[0] {
			return err
		}
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return err
	}
	return fmt.Errorf("unknown verb %q%s", args[0], nearest.Hint(args[0], verbs))
}

// answer is standard output, whose reader may go away.
type answer struct{ io.Writer }

var errUnread = errors.New("nobody reads the answer")

func streams(stdout, stderr io.Writer) Streams {
	return Streams{Out: answer{stdout}, Err: stderr, OutTerm: terminal(stdout), ErrTerm: terminal(stderr)}
}

func (a answer) Write(p []byte) (int, error) {
	n, err := a.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		err = errUnread
	}
	return n, err
}
