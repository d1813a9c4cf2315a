// The repository tests itself: the rules of the house that a program can check.
package perch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/topology"
)

const module = "github.com/perch-edge/perch/"

// source is a Go file of the repository.
type source struct {
	path string // relative, with slashes
	dir  string
	test bool
	file *ast.File
}

func sources(t *testing.T) (list []source, fset *token.FileSet) {
	t.Helper()
	fset = token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		list = append(list, source{path: path, dir: filepath.Dir(path), test: strings.HasSuffix(path, "_test.go"), file: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("found %d Go files: this test looks in the wrong place", len(list))
	}
	return list, fset
}

// A package comment is a manual page: what the package does, with a picture of
// the flow.
func TestEveryPackageHasAManualPage(t *testing.T) {
	list, _ := sources(t)
	docs := map[string][]string{}
	for _, s := range list {
		if s.test {
			continue
		}
		if s.file.Doc != nil {
			docs[s.dir] = append(docs[s.dir], s.file.Doc.Text())
		} else if _, seen := docs[s.dir]; !seen {
			docs[s.dir] = nil
		}
	}
	for dir, texts := range docs {
		if len(texts) != 1 {
			t.Errorf("%s has %d package comments; want one", dir, len(texts))
			continue
		}
		text := texts[0]
		if len(text) < 120 || !strings.Contains(text, "\n\t") && !strings.Contains(text, "\n    ") {
			t.Errorf("%s: the package comment is no manual page: want some sentences and an indented picture of the flow", dir)
		}
		if strings.Contains(text, " contains ") && strings.Index(text, " contains ") < 40 {
			t.Errorf("%s: the package comment says what the package contains; want what it does", dir)
		}
	}
}

// fences are imports that only some packages may have, each with its reason.
func fences() []struct {
	imports string
	only    []string
	why     string
} {
	return []struct {
		imports string
		only    []string
		why     string
	}{
		{"github.com/pebbe/zmq4", []string{"pkg/msg"}, "the bus has one door, so that its rules hold everywhere"},
		{"unsafe", []string{"pkg/shm", "internal/turbojpeg"}, "shared memory and one C call are all that needs it"},
		{"C", []string{"internal/turbojpeg"}, "C code is hard to review and to cross-compile"},
		{"github.com/yalue/onnxruntime_go", []string{"internal/onnx"}, "the runtime has rules of its own about threads, memory and shutdown"},
		{"github.com/expr-lang/expr", []string{"internal/rule"}, "one language for all rules, and one way to say what is wrong with one"},
		{"os/signal", []string{"pkg/worker", "cmd/supervisor"}, "a worker learns of its end by its context; the supervisor stops in two steps"},
		{"flag", nil, "kong reads all command lines"},
		{"github.com/alecthomas/kong", []string{"pkg/worker"}, "one command line for all: worker.Program and worker.Tool"},
		{"github.com/bluenviron/gortsplib/v5", []string{"internal/rtspcam"}, "one client, so that passwords and times are treated the same everywhere"},
		{"github.com/BurntSushi/toml", []string{"pkg/topology"}, "one strict reader of configuration"},
		{"github.com/robfig/cron/v3", []string{"pkg/topology"}, "only its parser is used; when a job runs is the supervisor's"},
		{"log", nil, "log/slog is the log"},
		{"github.com/stretchr/testify", nil, "the standard library and go-cmp say what failed"},
	}
}

func TestImportsStayBehindTheirFences(t *testing.T) {
	list, _ := sources(t)
	for _, s := range list {
		if s.test || s.dir == "bench" {
			continue
		}
		for _, imp := range s.file.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			for _, f := range fences() {
				if path == f.imports && !slices.Contains(f.only, s.dir) {
					t.Errorf("%s imports %s; only %v may: %s", s.path, path, f.only, f.why)
				}
			}
			if own, _, _ := strings.Cut(strings.TrimPrefix(s.dir, "cmd/"), "/"); strings.HasPrefix(path, module+"cmd/") && !strings.HasPrefix(path, module+"cmd/"+own+"/internal/") {
				t.Errorf("%s imports %s; a program is not a library", s.path, path)
			}
			if strings.HasPrefix(s.dir, "pkg/") && strings.HasPrefix(path, module+"e2e") {
				t.Errorf("%s imports %s; tests are not libraries", s.path, path)
			}
		}
	}
}

// main.go is the manual page and one call; only the runtime ends the process.
func TestMainIsOneCall(t *testing.T) {
	list, _ := sources(t)
	for _, s := range list {
		if filepath.Base(s.path) != "main.go" || !strings.HasPrefix(s.path, "cmd/") {
			continue
		}
		if s.file.Doc == nil {
			t.Errorf("%s has no package comment; it is the program's manual page", s.path)
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "main" && len(f.Body.List) != 1 {
				t.Errorf("%s: main has %d statements; want one call", s.path, len(f.Body.List))
			}
		}
	}
}

func TestNoHiddenState(t *testing.T) {
	list, fset := sources(t)
	for _, s := range list {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: an init function; nothing may happen by import", fset.Position(f.Pos()))
			}
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || s.test {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if !constantLike(v) {
					t.Errorf("%s: variable %s; package-level variables are errors, regular expressions, embedded files and interface checks only",
						fset.Position(v.Pos()), v.Names[0])
				}
			}
		}
	}
}

// constantLike says whether a variable is one that nobody changes.
func constantLike(v *ast.ValueSpec) bool {
	if v.Names[0].Name == "_" {
		return true
	}
	for _, value := range v.Values {
		call, ok := value.(*ast.CallExpr)
		if !ok {
			return false
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, _ := fun.X.(*ast.Ident)
		if pkg == nil || !slices.Contains([]string{"errors.New", "regexp.MustCompile"}, pkg.Name+"."+fun.Sel.Name) {
			return false
		}
	}
	return len(v.Values) > 0 || v.Type != nil // an embedded file has a type and no value
}

func TestNothingIsLeftForLater(t *testing.T) {
	list, fset := sources(t)
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, s := range list {
		if s.path == "house_test.go" {
			continue
		}
		for _, group := range s.file.Comments {
			if word := later.FindString(group.Text()); word != "" {
				t.Errorf("%s: %s; do it or say it in an issue", fset.Position(group.Pos()), word)
			}
		}
	}
}

func TestSkipsGiveTheirReason(t *testing.T) {
	list, fset := sources(t)
	for _, s := range list {
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if ok && s.test && (fun.Sel.Name == "SkipNow" || fun.Sel.Name == "Skip" && len(call.Args) == 0) {
				t.Errorf("%s: a skip without its reason", fset.Position(call.Pos()))
			}
			return true
		})
	}
}

func TestFoldersSayWhatIsInThem(t *testing.T) {
	list, _ := sources(t)
	for _, s := range list {
		for _, word := range strings.Split(s.dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helpers", "helper", "misc", "base"}, word) {
				t.Errorf("%s: %q says nothing about what is there", s.path, word)
			}
		}
	}
}

// Every topology that ships is one that loads.
func TestShippedTopologiesLoad(t *testing.T) {
	files, err := filepath.Glob("deploy/*.toml")
	if err != nil || len(files) < 2 {
		t.Fatalf("Glob(deploy/*.toml) = %v, %v; want at least two", files, err)
	}
	for _, f := range files {
		if _, err := topology.Load(f, topology.Settings{}); err != nil {
			t.Errorf("Load(%s) = %v; want no problem", f, err)
		}
	}
}

// The words that a newcomer types are the ones that exist.
func TestReadmeNamesRealThings(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`?make ([a-z0-9]+)").FindAllStringSubmatch(string(readme), -1) {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
			t.Errorf("README.md names make %s; the Makefile has no such target", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(readme), -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("README.md links to %s: %v", m[1], err)
		}
	}
}
