package nearest

import "testing"

func TestHint(t *testing.T) {
	known := []string{"flush", "dir", "columns"}
	for _, c := range []struct{ word, want string }{
		{"flsh", `; did you mean "flush"?`},
		{"flsuh", `; did you mean "flush"?`},
		{"column", `; did you mean "columns"?`},
		{"dri", `; did you mean "dir"?`},
		{"resolution", "; known are flush, dir, columns"},
	} {
		if got := Hint(c.word, known); got != c.want {
			t.Errorf("Hint(%q) = %q; want %q", c.word, got, c.want)
		}
	}
	if got := Hint("x", nil); got != "" {
		t.Errorf("Hint with nothing known = %q; want nothing", got)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"flush", "flush", 0}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d; want %d", c.a, c.b, got, c.want)
		}
	}
}
