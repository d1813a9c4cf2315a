package topology

import (
	"maps"
	"strings"

	"github.com/BurntSushi/toml"
)

// Settings are keys given on the command line, each "key=value". They come on
// top of a topology. A key is below the table Under, unless it begins with
// "node.". A value is TOML; what is not, is taken as a string, so that a person
// can write flush=1hz.
type Settings struct {
	Under  string // as "worker.air-csv"
	Values []string
}

func (t *Table) set(settings Settings) (ps Problems) {
	for _, s := range settings.Values {
		key, value, ok := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		name := "--set " + withoutPassword(s)
		if !ok || !isOneKey(key) {
			ps = append(ps, Problem{File: name, Message: "want key=value, the key as in a topology"})
			continue
		}
		if settings.Under != "" && !strings.HasPrefix(key, "node.") {
			key = settings.Under + "." + key
		}
		over, err := parse(name, key+" = "+value)
		if err != nil {
			over, err = parse(name, key+" = "+tomlString(value))
		}
		if err != nil {
			ps = append(ps, Problem{File: name, Message: "want key=value, the key as in a topology"})
			continue
		}
		over.unplace()
		t.over(over)
	}
	return ps
}

// isOneKey keeps out what would be more than a key.
func isOneKey(key string) bool { return key != "" && !strings.ContainsAny(key, "\n#[]{}") }

// tomlString quotes any text as TOML.
func tomlString(s string) string {
	var b strings.Builder
	if err := toml.NewEncoder(&b).Encode(map[string]string{"v": s}); err != nil {
		return `""` // any string can be encoded
	}
	return strings.TrimSpace(strings.TrimPrefix(b.String(), "v = "))
}

// unplace forgets lines: a setting has none.
func (t *Table) unplace() {
	t.at.line = 0
	for k, it := range t.keys {
		it.at.line = 0
		t.keys[k] = it
		if sub, ok := t.sub(k); ok {
			sub.unplace()
		}
	}
}

// only is a view of the table with some of its keys.
func (t *Table) only(keys []string) *Table {
	view := &Table{path: t.path, at: t.at, keys: map[string]item{}}
	maps.Copy(view.keys, t.keys)
	maps.DeleteFunc(view.keys, func(k string, _ item) bool {
		for _, wanted := range keys {
			if k == wanted {
				return false
			}
		}
		return true
	})
	return view
}

func (t *Table) has(key string) bool {
	_, ok := t.keys[key]
	return ok
}
