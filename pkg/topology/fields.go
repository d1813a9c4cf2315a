package topology

import (
	"cmp"
	"encoding"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"
)

// field is a key of a config struct: its toml tag, its doc tag, which is the one
// place where a key is explained, and its example tag, a value as TOML for a key
// that has no default.
type field struct {
	key, doc, example string
}

// configFields walks the keys of a struct, also those of embedded structs.
func configFields(v reflect.Value) iter.Seq2[field, reflect.Value] {
	return func(yield func(field, reflect.Value) bool) { walkFields(v, yield) }
}

func walkFields(v reflect.Value, yield func(field, reflect.Value) bool) bool {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case f.Anonymous && key == "":
			if !walkFields(v.Field(i), yield) {
				return false
			}
		case key == "" || key == "-" || !f.IsExported():
		case !yield(field{key, f.Tag.Get("doc"), f.Tag.Get("example")}, v.Field(i)):
			return false
		}
	}
	return true
}

// Example is the table of an entry with every key, its default and its
// meaning, as TOML that can be copied into a topology: first the keys that all
// entries of the role have, then those of the program's config struct. Keys
// without a default are commented out, with an example where the struct has one.
func Example(role Role, name, program string, cfg any) string {
	var common any = &workerKeys{Program: program, Source: Refs{{Name: "NAME"}}}
	switch role {
	case Sensor:
		common = &sensorKeys{Program: program}
	case Job:
		job := defaultJob()
		job.Program, job.Source, job.Every = program, Refs{{Name: "NAME"}}, Duration(10*time.Minute)
		common = &job
	}
	var b strings.Builder
	path := string(role) + "." + name
	fmt.Fprintf(&b, "[%s]\n", path)
	exampleKeys(&b, path, reflect.ValueOf(common).Elem())
	exampleKeys(&b, path, reflect.Indirect(reflect.ValueOf(cfg)))
	return b.String()
}

// ExampleNode is the table [node] with every key and its meaning. Folders have
// the defaults of root, whoever asks.
func ExampleNode() string {
	n := DefaultNode()
	n.Name, n.RunDir, n.ShmDir, n.CacheDir, n.StoreDir = "airpi-01", "/run/perch", "/dev/shm/perch", "/dev/shm/perch/cache", "/var/lib/perch"
	var b strings.Builder
	b.WriteString("[node]\n")
	exampleKeys(&b, "node", reflect.ValueOf(nodeKeys{Node: n}))
	return b.String()
}

func exampleKeys(b *strings.Builder, path string, v reflect.Value) {
	type sub struct {
		path, doc string
		v         reflect.Value
	}
	var tables []sub
	for f, fv := range configFields(v) {
		switch {
		case isLeaf(fv.Type()):
			exampleKey(b, f, fv)
		case fv.Kind() == reflect.Map:
			for _, name := range fv.MapKeys() {
				shown := name.String()
				if shown == "" {
					shown = "NAME"
				}
				tables = append(tables, sub{path + "." + f.key + "." + shown, "", fv.MapIndex(name)})
			}
		default:
			tables = append(tables, sub{path + "." + f.key, f.doc, fv})
		}
	}
	for _, t := range tables {
		head := "[" + t.path + "]"
		if t.doc != "" {
			head = fmt.Sprintf("%-*s # %s", docColumn, head, t.doc)
		}
		fmt.Fprintf(b, "\n%s\n", head)
		exampleKeys(b, t.path, t.v)
	}
}

const docColumn = 34

func exampleKey(b *strings.Builder, f field, v reflect.Value) {
	value, mark := tomlValue(v), ""
	if v.IsZero() && v.Kind() != reflect.Bool && isUnset(v) {
		mark, value = "# ", cmp.Or(f.example, value)
	}
	line := fmt.Sprintf("%s%s = %s", mark, f.key, value)
	fmt.Fprintf(b, "%-*s # %s\n", docColumn, line, f.doc)
}

// isUnset says whether a zero value means that nothing is set: an empty
// string or list, rather than the number 0.
func isUnset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map, reflect.Struct, reflect.Pointer:
		return true
	default:
		return false
	}
}

func tomlValue(v reflect.Value) string {
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		if as, err := text.MarshalText(); err == nil {
			return fmt.Sprintf("%q", as)
		}
	}
	if text, ok := v.Interface().(fmt.Stringer); ok {
		return fmt.Sprintf("%q", text.String())
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = tomlValue(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case reflect.Map:
		return "{}" // a default that is not empty would be a table of its own
	case reflect.Float64, reflect.Float32:
		text := fmt.Sprint(v.Float())
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	default:
		return fmt.Sprint(v.Interface())
	}
}
