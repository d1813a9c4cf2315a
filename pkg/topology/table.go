package topology

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/perch-edge/perch/internal/nearest"
)

// Table is a table of a topology, not yet decoded, that knows where each of
// its keys stands.
type Table struct {
	path []string
	at   place
	keys map[string]item
}

// place is a line of a text: of the topology, or of the settings given on the
// command line, which come on top of it.
type place struct {
	file string
	line int // 0 is unknown
}

// item is a value that is not decoded yet, or a table once it was looked into.
type item struct {
	md   *toml.MetaData
	prim toml.Primitive
	at   place
	sub  *Table
}

// parse reads a TOML text into a table of everything.
func parse(name, text string) (*Table, error) {
	root := map[string]toml.Primitive{}
	md, err := toml.Decode(text, &root)
	if bad := (toml.ParseError{}); errors.As(err, &bad) {
		// Counted here: the library is a line ahead where a line ends too early.
		line := 1 + strings.Count(text[:min(max(bad.Position.Start, 0), len(text))], "\n")
		return nil, Problems{{File: name, Line: line, Key: bad.LastKey, Message: "not valid TOML: " + bad.Message + commaHint(text, line)}}
	}
	if err != nil {
		return nil, Problems{{File: name, Message: "not valid TOML: " + err.Error()}}
	}
	return newTable(&md, nil, place{file: name}, root), nil
}

var commaRE = regexp.MustCompile(`=\s*[+-]?\d+,\d+\s*(#|$)`)

// commaHint is for a number that is written with a decimal comma.
func commaHint(text string, line int) string {
	lines := strings.Split(text, "\n")
	if line > len(lines) || !commaRE.MatchString(lines[line-1]) {
		return ""
	}
	return "; a number has a decimal point, as 48.1"
}

func newTable(md *toml.MetaData, path []string, at place, prims map[string]toml.Primitive) *Table {
	t := &Table{path: path, at: at, keys: map[string]item{}}
	for k, p := range prims {
		it := item{md: md, prim: p, at: place{at.file, lineOf(md, p)}}
		if it.at.line == 0 { // a table that only its own tables name
			it.at.line = max(at.line, firstLine(md, p))
		}
		t.keys[k] = it
	}
	return t
}

// refusal is a TOML type that refuses every value: the library's error about
// it carries the value's position, which it tells in no other way.
type refusal struct{}

var errRefused = errors.New("refused")

func (refusal) UnmarshalTOML(any) error { return errRefused }

func lineOf(md *toml.MetaData, p toml.Primitive) int {
	var bad toml.ParseError
	errors.As(md.PrimitiveDecode(p, &refusal{}), &bad)
	return bad.Position.Line
}

// firstLine is where the first of a table's own tables stands.
func firstLine(md *toml.MetaData, p toml.Primitive) (first int) {
	if !(item{md: md, prim: p}).isTable() {
		return 0
	}
	prims := map[string]toml.Primitive{}
	if err := md.PrimitiveDecode(p, &prims); err != nil {
		return 0
	}
	for _, sub := range prims {
		line := lineOf(md, sub)
		if line == 0 {
			line = firstLine(md, sub)
		}
		if line > 0 && (first == 0 || line < first) {
			first = line
		}
	}
	return first
}

// Path is the table's name, as "sensor.air".
func (t *Table) Path() string { return strings.Join(t.path, ".") }

// Keys lists the table's keys, sorted.
func (t *Table) Keys() []string { return slices.Sorted(maps.Keys(t.keys)) }

// Problem is a problem with one of the table's keys, as "size", or with one of
// a table within, as "stream.video.size"; with the key "", with the table
// itself.
func (t *Table) Problem(key, format string, args ...any) Problem {
	if !t.has(key) && strings.Contains(key, ".") {
		return t.deep(key).Problem(lastWord(key), format, args...)
	}
	p := Problem{File: t.at.file, Line: t.at.line, Key: t.Path(), Message: fmt.Sprintf(format, args...)}
	if key != "" {
		p.Key = strings.TrimPrefix(p.Key+"."+key, ".")
	}
	if it, ok := t.keys[key]; ok {
		p.File, p.Line, p.Value = it.at.file, it.at.line, it.text()
	}
	return p
}

// text is the value as a person would write it; tables have none.
func (it item) text() string {
	var v any
	if err := it.md.PrimitiveDecode(it.prim, &v); err != nil {
		return ""
	}
	return valueText(v)
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", withoutPassword(v))
	case map[string]any, []map[string]any:
		return ""
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = valueText(v[i])
		}
		return "[" + strings.Join(words, ", ") + "]"
	default:
		return fmt.Sprint(v)
	}
}

// withoutPassword takes user and password out of a URL, since problems are
// logged: all up to its last @, for a password may hold any character.
func withoutPassword(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return text
	}
	return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
}

// isTable looks at the value itself: the library decodes anything into a map
// without complaint.
func (it item) isTable() bool {
	var v any
	err := it.md.PrimitiveDecode(it.prim, &v)
	_, ok := v.(map[string]any)
	return ok && err == nil
}

// sub is the table under a key.
func (t *Table) sub(key string) (*Table, bool) {
	it, ok := t.keys[key]
	if !ok || it.sub != nil {
		return it.sub, ok
	}
	if !it.isTable() {
		return nil, false
	}
	prims := map[string]toml.Primitive{}
	if err := it.md.PrimitiveDecode(it.prim, &prims); err != nil {
		return nil, false
	}
	it.sub = newTable(it.md, append(slices.Clone(t.path), key), it.at, prims)
	t.keys[key] = it
	return it.sub, true
}

// over lays other's keys over t's, tables into tables.
func (t *Table) over(other *Table) {
	for _, k := range other.Keys() {
		mine, isTable := t.sub(k)
		theirs, areTables := other.sub(k)
		if isTable && areTables {
			mine.over(theirs)
		} else {
			t.keys[k] = other.keys[k]
		}
	}
}

// Bind decodes the table into the struct that cfg points to, by its toml
// tags, leaving out the keys in except. Every other key must be a field, every
// value must fit; the fields' present values are the defaults; a Validate
// method has the last word. All problems are found at once.
func (t *Table) Bind(cfg any, except ...string) Problems {
	v := reflect.ValueOf(cfg).Elem()
	ps := t.bindStruct(v, except)
	whole := len(ps) == 0
	for _, p := range t.validate(v) {
		// Beside other problems only those of values that stand there count: a
		// default may be wrong just because of them.
		if whole || p.Value != "" && !ps.about(p.Key) {
			ps = append(ps, p)
		}
	}
	ps.Sort()
	return ps
}

// KeyError is what a config's Validate returns to point at one of its keys;
// several are joined with errors.Join.
type KeyError struct {
	Key string // below the config's own table, as "stream.video.size"
	Err error
}

func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap is the error itself.
func (e *KeyError) Unwrap() error { return e.Err }

// Bad makes a KeyError.
func Bad(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

func (t *Table) validate(v reflect.Value) Problems {
	checked, ok := v.Addr().Interface().(interface{ Validate() error })
	if !ok {
		return nil
	}
	return t.problemsOf(checked.Validate())
}

// Problems are what is wrong with the table, from errors that Bad made or others.
func (t *Table) Problems(err error) Problems { return t.problemsOf(err) }

func (t *Table) problemsOf(err error) Problems {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var ps Problems
		for _, e := range joined.Unwrap() {
			ps = append(ps, t.problemsOf(e)...)
		}
		return ps
	}
	if key := (*KeyError)(nil); errors.As(err, &key) {
		return Problems{t.Problem(key.Key, "%v", key.Err)}
	}
	return Problems{t.Problem("", "%v", err)}
}

// deep is the table that holds the last word of a dotted key.
func (t *Table) deep(key string) *Table {
	words := strings.Split(key, ".")
	for _, w := range words[:len(words)-1] {
		sub, ok := t.sub(w)
		if !ok {
			sub = &Table{path: append(slices.Clone(t.path), w), at: t.at, keys: map[string]item{}}
		}
		t = sub
	}
	return t
}

func lastWord(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// moved is where a key stands now that a struct had once (its method Moved says
// so); otherwise hint.
func moved(v reflect.Value, key, hint string) string {
	if s, ok := v.Addr().Interface().(interface{ Moved() map[string]string }); ok && s.Moved()[key] != "" {
		return "; " + s.Moved()[key]
	}
	return hint
}

// below is the table further down that has a key, such as a stream's that was
// written to its sensor; otherwise hint.
func (t *Table) below(v reflect.Value, key, hint string) string {
	for f, fv := range configFields(v) {
		if fv.Kind() != reflect.Map || fv.Type().Elem().Kind() != reflect.Struct {
			continue
		}
		for sub := range configFields(reflect.New(fv.Type().Elem()).Elem()) {
			if sub.key == key {
				return fmt.Sprintf("; it belongs below, in [%s.%s.NAME]", t.Path(), f.key)
			}
		}
	}
	return hint
}

func (t *Table) bindStruct(v reflect.Value, except []string) (ps Problems) {
	fields := map[string]reflect.Value{}
	var known []string
	for f, fv := range configFields(v) {
		fields[f.key] = fv
		known = append(known, f.key)
	}
	for _, key := range t.Keys() {
		if slices.Contains(except, key) {
			continue
		}
		field, ok := fields[key]
		if !ok {
			ps = append(ps, t.Problem(key, "unknown key%s", moved(v, key, t.below(v, key, nearest.Hint(key, append(known, except...))))))
			continue
		}
		ps = append(ps, t.bindValue(key, field)...)
	}
	for key, field := range fields {
		if !t.has(key) && field.Kind() == reflect.Map && !isLeaf(field.Type()) {
			field.SetZero() // its defaults were for tables that are not there
		}
	}
	return ps
}

func (t *Table) bindValue(key string, field reflect.Value) Problems {
	if isLeaf(field.Type()) {
		it := t.keys[key]
		if err := it.md.PrimitiveDecode(it.prim, field.Addr().Interface()); err != nil {
			return Problems{t.Problem(key, "%s", whyNot(err, field.Type()))}
		}
		return nil
	}
	sub, ok := t.sub(key)
	if !ok {
		return Problems{t.Problem(key, "want a table [%s.%s]", t.Path(), key)}
	}
	if field.Kind() == reflect.Struct {
		return sub.bindStruct(field, nil)
	}
	return sub.bindMap(field)
}

// bindMap decodes tables by name; a map's entry "" holds the defaults of each.
func (t *Table) bindMap(field reflect.Value) (ps Problems) {
	out := reflect.MakeMap(field.Type())
	defaults := reflect.Zero(field.Type().Elem())
	if field.IsValid() && !field.IsNil() {
		if d := field.MapIndex(reflect.ValueOf("")); d.IsValid() {
			defaults = d
		}
	}
	for _, name := range t.Keys() {
		v := reflect.New(field.Type().Elem()).Elem()
		v.Set(defaults)
		sub, ok := t.sub(name)
		if !ok {
			ps = append(ps, t.Problem(name, "want a table [%s.%s]", t.Path(), name))
			continue
		}
		ps = append(ps, sub.bindStruct(v, nil)...)
		out.SetMapIndex(reflect.ValueOf(name), v)
	}
	field.Set(out)
	return ps
}

// isLeaf says whether a type is one value, and not a table of its own.
func isLeaf(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	if p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || p.Implements(reflect.TypeFor[toml.Unmarshaler]()) {
		return true
	}
	if t.Kind() == reflect.Map {
		return t.Elem().Kind() != reflect.Struct
	}
	return t.Kind() != reflect.Struct
}

// whyNot says what a value should have been.
func whyNot(err error, t reflect.Type) string {
	if t.Kind() == reflect.Pointer { // a key that may be absent
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	if p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || p.Implements(reflect.TypeFor[toml.Unmarshaler]()) {
		if bad := (toml.ParseError{}); errors.As(err, &bad) {
			return bad.Message
		}
		return strings.TrimPrefix(err.Error(), "toml: ")
	}
	return "want " + typeName(t)
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list [ ] of " + strings.TrimPrefix(typeName(t.Elem()), "a ")
	case reflect.Map:
		return "a table, each value " + typeName(t.Elem())
	default:
		return t.String()
	}
}
