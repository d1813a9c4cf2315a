// Package rule is the conditions that people write in a topology: which files
// are kept, and which may be deleted.
//
//	keep = 'any(detections, .label == "person" && .score >= 0.5)' --Rule--> true or false, for a file
//
// The language is that of github.com/expr-lang/expr: comparisons, and, or, not,
// arithmetic, and functions over lists (any, all, filter, count, len). A rule is
// compiled against the names that it may use and must be true or false: what
// is wrong with it is known before anything runs, and says where. It cannot
// loop without end, and reaches nothing but what it is given.
//
// It fails, for one file, where a value is not there, such as the first of an
// empty list; then it has decided nothing.
package rule

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"github.com/perch-edge/perch/internal/nearest"
)

// Rule is a condition over an E: a struct whose fields have the names that
// their expr tags give. The zero value is no rule.
type Rule[E any] struct {
	text    string
	program *vm.Program
	names   map[string]bool     // that it uses
	texts   map[string][]string // that it compares a field with
}

// maxText bounds a rule's length in bytes.
const maxText = 4096

// Compile reads a rule.
func Compile[E any](text string) (Rule[E], error) {
	var r Rule[E]
	return r, r.UnmarshalText([]byte(text))
}

// UnmarshalText makes a Rule a value of a topology.
func (r *Rule[E]) UnmarshalText(text []byte) error {
	if len(text) > maxText {
		return fmt.Errorf("a rule of %d bytes: want at most %d", len(text), maxText)
	}
	var env E
	program, err := expr.Compile(string(text), expr.Env(env), expr.AsBool())
	if err != nil {
		return readable(err, names(reflect.TypeOf(env)), parts(reflect.TypeOf(env)))
	}
	tree, err := parser.Parse(string(text))
	if err != nil {
		return readable(err, nil, nil)
	}
	used := &identifiers{map[string]bool{}, map[string][]string{}}
	ast.Walk(&tree.Node, used)
	*r = Rule[E]{string(text), program, used.names, used.texts}
	return nil
}

// MarshalText is the rule as it was written.
func (r Rule[E]) MarshalText() ([]byte, error) { return []byte(r.text), nil }

func (r Rule[E]) String() string { return r.text }

// Is says whether there is a rule.
func (r Rule[E]) Is() bool { return r.program != nil }

// Uses says whether the rule speaks of that name.
func (r Rule[E]) Uses(name string) bool { return r.names[name] }

// Compared lists the texts that the rule compares a field of a list's items with:
// "person" in .label == "person", and in .label in ["person", "dog"].
func (r Rule[E]) Compared(field string) []string { return r.texts[field] }

// Match applies the rule. It must not be called where Is says that there is none.
func (r Rule[E]) Match(env E) (bool, error) {
	out, err := expr.Run(r.program, env)
	if err != nil {
		return false, fmt.Errorf("apply rule %q: %w", r.text, readable(err, nil, nil))
	}
	yes, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("apply rule %q: it is %v, want true or false", r.text, out)
	}
	return yes, nil
}

// identifiers gathers the names in a rule, and what fields are compared with.
type identifiers struct {
	names map[string]bool
	texts map[string][]string
}

// Visit is called for each node of a rule.
func (i *identifiers) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		i.names[n.Value] = true
	case *ast.BinaryNode:
		i.compare(n.Left, n.Right)
		i.compare(n.Right, n.Left)
	}
}

func (i *identifiers) compare(left, right ast.Node) {
	member, ok := left.(*ast.MemberNode)
	if !ok {
		return
	}
	field, ok := member.Property.(*ast.StringNode)
	if !ok {
		return
	}
	texts := []ast.Node{right}
	if list, ok := right.(*ast.ArrayNode); ok {
		texts = list.Nodes
	}
	for _, t := range texts {
		if text, ok := t.(*ast.StringNode); ok {
			i.texts[field.Value] = append(i.texts[field.Value], text.Value)
		}
	}
}

// readable is an error of the library's in one line, with the nearest of the
// names that there are: of the whole, or of what lists hold.
func readable(err error, known, fields []string) error {
	bad := (*file.Error)(nil)
	if !errors.As(err, &bad) {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return errors.New(first)
	}
	hint, text := "", bad.Message
	if name, ok := strings.CutPrefix(text, "unknown name "); ok && known != nil {
		hint = nearest.Hint(name, known)
	}
	if m := noField.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("nothing is called .%s there", m[1])
		hint = nearest.Hint(m[1], fields)
	}
	return fmt.Errorf("%s (at character %d)%s", text, bad.Column+1, hint)
}

// noField is how the library says that a value of a list has no such part.
var noField = regexp.MustCompile(`has no field (\w+)$`)

// names lists the names of a struct's fields, also those of embedded ones.
func names(t reflect.Type) (list []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			list = append(list, names(f.Type)...)
		} else if tag := f.Tag.Get("expr"); tag != "" {
			list = append(list, tag)
		}
	}
	return list
}

// parts lists the names of what a struct's lists hold.
func parts(t reflect.Type) (list []string) {
	for i := range t.NumField() {
		if f := t.Field(i).Type; f.Kind() == reflect.Slice && f.Elem().Kind() == reflect.Struct {
			list = append(list, names(f.Elem())...)
		}
	}
	return list
}
