package yolo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// COCO are the labels of the 80 classes of COCO (cocodataset.org), in the order
// in which networks trained on it count them.
func COCO() []string {
	return strings.Split("person|bicycle|car|motorbike|aeroplane|bus|train|truck|boat|traffic light|fire hydrant|"+
		"stop sign|parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|"+
		"handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|"+
		"tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|"+
		"pizza|donut|cake|chair|sofa|pottedplant|bed|diningtable|toilet|tvmonitor|laptop|mouse|remote|keyboard|cell phone|"+
		"microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush", "|")
}

// maxLabel is the longest label in bytes: a message has room for MaxObjects of them.
const maxLabel = 64

// Labels settles what the network's classes are called: by given, if there is any,
// else by the names in the metadata, else by COCO's for 80 classes. Where the
// outputs do not tell how many classes there are (0), there are as many as names.
// It fails when the numbers differ, and when there are no names.
func Labels(given []string, meta map[string]string, classes int) ([]string, error) {
	names, from := given, "labels"
	if len(names) == 0 && meta["names"] != "" {
		var err error
		if names, err = ParseNames(meta["names"]); err != nil {
			return nil, fmt.Errorf("the model's own names: %w; give labels", err)
		}
		names, from = usable(names), "the model's own names"
	}
	if len(names) == 0 && classes == len(COCO()) {
		names = COCO()
	}
	switch {
	case len(names) == 0 && classes == 0:
		return nil, errors.New(`the model has no names for its classes: give labels; labels = "coco" are COCO's 80`)
	case len(names) == 0:
		return nil, fmt.Errorf("the model has %d classes and no names for them: give labels", classes)
	case len(names) > maxClasses:
		return nil, fmt.Errorf("%s: %d: want %d at most", from, len(names), maxClasses)
	case classes > 0 && len(names) == classes+1 && meta["names"] != "" && from != "labels" && fromOne(meta["names"]):
		return nil, fmt.Errorf("%s count from 1, and classes from 0: give labels, one for each of the model's %d classes", from, classes)
	case classes > 0 && len(names) != classes:
		return nil, fmt.Errorf("%s: %d: want one for each of the model's %d classes", from, len(names), classes)
	}
	for i, n := range names {
		if n == "" || len(n) > maxLabel {
			return nil, fmt.Errorf("%s: class %d is %.80q: want 1 to %d bytes", from, i, n, maxLabel)
		}
	}
	return names, nil
}

// fromOne says whether names leave class 0 out.
func fromOne(text string) bool {
	p := nameParser{rest: text}
	names, err := p.names()
	_, zero := names[0]
	return err == nil && !zero
}

// usable makes the names that came with a model ones that messages can hold:
// longer ones are cut, control characters become spaces, and a class without a
// name is called by its number.
func usable(names []string) []string {
	for i, n := range names {
		n = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, strings.ToValidUTF8(n, "?"))
		if n = strings.TrimSpace(n); n == "" {
			n = fmt.Sprintf("class %d", i)
		}
		for len(n) > maxLabel {
			_, last := utf8.DecodeLastRuneInString(n)
			n = n[:len(n)-last]
		}
		names[i] = n
	}
	return names
}

// ParseNames reads class names as exporters note them: a Python dictionary or JSON
// object of numbers and names, {0: 'person', 1: "driver's seat"}, or a list of
// names. Classes that a dictionary leaves out have an empty name.
func ParseNames(text string) ([]string, error) {
	p := nameParser{rest: text}
	names, err := p.names()
	if err != nil {
		return nil, err
	}
	most := -1
	for n := range names {
		most = max(most, n)
	}
	if most < 0 || most >= 2*len(names)+100 {
		return nil, errNames
	}
	list := make([]string, most+1)
	for n, name := range names {
		list[n] = name
	}
	return list, nil
}

var errNames = errors.New("want {0: 'name', 1: 'name', ...} or ['name', ...]")

// nameParser reads a literal of Python's or JSON's.
type nameParser struct{ rest string }

func (p *nameParser) names() (map[int]string, error) {
	names := map[int]string{}
	dict := p.token('{')
	if !dict && !p.token('[') {
		return nil, errNames
	}
	end := byte(']')
	if dict {
		end = '}'
	}
	for n := 0; !p.token(end); n++ {
		if n > 0 && (!p.token(',') || n > maxClasses) {
			return nil, errNames
		}
		if p.token(end) { // Python allows a comma there
			break
		}
		key, ok := n, true
		if dict {
			key, ok = p.key()
		}
		if _, twice := names[key]; !ok || twice {
			return nil, errNames
		}
		name, ok := p.quoted()
		if !ok {
			return nil, errNames
		}
		names[key] = name
	}
	if strings.TrimSpace(p.rest) != "" || len(names) == 0 {
		return nil, errNames
	}
	return names, nil
}

func (p *nameParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *nameParser) token(c byte) bool {
	p.space()
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// key reads a class's number, which JSON has in quotes, and the colon.
func (p *nameParser) key() (int, bool) {
	p.space()
	text, quoted := p.quoted()
	if !quoted {
		end := strings.IndexByte(p.rest, ':')
		if end < 0 {
			return 0, false
		}
		text, p.rest = strings.TrimSpace(p.rest[:end]), p.rest[end:]
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && n < maxClasses && p.token(':')
}

// quoted reads a string in single or double quotes, with the escapes that Python
// and JSON share.
func (p *nameParser) quoted() (string, bool) {
	p.space()
	text := p.rest
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return "", false
	}
	var b strings.Builder
	for rest := text[1:]; rest != ""; {
		if rest[0] == text[0] {
			p.rest = rest[1:]
			return b.String(), true
		}
		if rest[0] != '\\' {
			b.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		r, n := escape(rest)
		if n == 0 {
			return "", false
		}
		if utf16.IsSurrogate(r) { // the first half of a character that JSON writes as two
			second, more := escape(rest[n:])
			if both := utf16.DecodeRune(r, second); both != utf8.RuneError {
				r, n = both, n+more
			}
		}
		b.WriteRune(r)
		rest = rest[n:]
	}
	return "", false
}

// escape reads a backslash and what follows it; n is 0 where that is nothing.
func escape(text string) (r rune, n int) {
	if len(text) < 2 || text[0] != '\\' {
		return 0, 0
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[text[1]]
	if digits > 0 && len(text) >= 2+digits {
		if v, err := strconv.ParseUint(text[2:2+digits], 16, 32); err == nil {
			return rune(v), 2 + digits
		}
	}
	switch text[1] {
	case 'n', 'r', 't':
		return ' ', 2
	}
	r, size := utf8.DecodeRuneInString(text[1:])
	return r, 1 + size
}
