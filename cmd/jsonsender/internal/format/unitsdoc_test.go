package format

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// unitTable is the table of units for people.
func unitTable() string {
	var b strings.Builder
	b.WriteString("| end | unit | shown as | device class |\n| --- | --- | --- | --- |\n")
	for _, u := range Units() {
		var classes []string
		for _, c := range u.Named {
			names := slices.Clone(c.Words)
			for _, n := range c.Names {
				names = append(names, "`"+n+"_"+u.Suffix+"` itself")
			}
			classes = append(classes, fmt.Sprintf("%s: `%s`", strings.Join(names, ", "), c.Device))
		}
		if u.Class.Device != "" {
			text := fmt.Sprintf("`%s`", u.Class.Device)
			if len(classes) > 0 {
				text = "else " + text
			}
			classes = append(classes, text)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", u.Suffix, u.Name, u.Display, strings.Join(classes, "; "))
	}
	return b.String()
}

func TestUnitsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../../docs/RECEIVERS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), unitTable()) {
		t.Errorf("docs/RECEIVERS.md has another table of units; want\n%s", unitTable())
	}
}
