package sink

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The receivers of docs/RECEIVERS.md receive: each is run by Python, and has every record.
func TestReceiversOfTheDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/RECEIVERS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, imports, port, to string }{
		{"lines", "socketserver", "7000", "tcp://127.0.0.1:%s"},
		{"websocket", "websockets", "7001", "ws://127.0.0.1:%s/in"},
		{"http", "http.server", "7002", "http://127.0.0.1:%s/in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := regexp.MustCompile("(?s)\n```python " + c.name + "\n(.*?)```\n").FindSubmatch(text)
			if m == nil {
				t.Fatalf("docs/RECEIVERS.md has no receiver %q", c.name)
			}
			python := pythonWith(c.imports)
			if python == "" {
				t.Skipf("no python3 can import %s", c.imports)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close() // for the receiver to take
			receiver := exec.Command(python, "-c", strings.Replace(string(m[1]), c.port, port, 1))
			receiver.Stderr = os.Stderr
			if c.name == "http" { // which logs each request there
				receiver.Stderr = nil
			}
			out, err := receiver.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := receiver.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = receiver.Process.Kill(); _ = receiver.Wait() })
			o := options(t, fmt.Sprintf(c.to, port), 10*time.Second)
			o.Ack = c.name != "http"
			s := open(t, o)
			list := items(t, 100)
			eventually(t, "delivery", func() bool { // it may still be starting
				results, err := s.Deliver(t.Context(), list)
				_, n, _ := states(results)
				return err == nil && n == len(list)
			})
			var got []string
			for in := bufio.NewScanner(out); len(got) < len(list) && in.Scan(); {
				id, _, _ := strings.Cut(in.Text(), " ")
				got = append(got, id)
			}
			for i := range list {
				if !slices.Contains(got, idOf(i)) {
					t.Fatalf("the receiver printed %d records, and not %s", len(got), idOf(i))
				}
			}
		})
	}
}

// pythonWith is a Python that has a module; "" is none. The system's need not be the first in PATH.
func pythonWith(module string) string {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import "+module).Run() == nil {
			return python
		}
	}
	return ""
}
