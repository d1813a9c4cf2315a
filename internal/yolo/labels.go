package yolo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
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
// else by the names in the metadata, else by COCO's for 80 classes. It fails when
// their number is another than the network's, and when there are none.
func Labels(given []string, meta map[string]string, classes int) ([]string, error) {
	names, from := given, "labels"
	if len(names) == 0 && meta["names"] != "" {
		var err error
		if names, err = ParseNames(meta["names"]); err != nil {
			return nil, fmt.Errorf("the model's own names: %w", err)
		}
		from = "the model's own names"
	}
	if len(names) == 0 && classes == len(COCO()) {
		names = COCO()
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the model has %d classes and no names for them: give labels", classes)
	}
	if len(names) != classes {
		return nil, fmt.Errorf("%s: %d: want one for each of the model's %d classes", from, len(names), classes)
	}
	for i, n := range names {
		if n == "" || len(n) > maxLabel {
			return nil, fmt.Errorf("%s: class %d is %.80q: want 1 to %d bytes", from, i, n, maxLabel)
		}
	}
	return names, nil
}

// ParseNames reads names as Ultralytics' exporter notes them, a Python dictionary:
// {0: 'person', 1: "driver's seat"}, counted from 0.
func ParseNames(text string) (names []string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "{")
	for ok && len(names) <= maxClasses {
		var number, name string
		number, rest, ok = strings.Cut(rest, ":")
		if n, err := strconv.Atoi(strings.TrimSpace(number)); !ok || err != nil || n != len(names) {
			break
		}
		if name, rest, ok = quoted(strings.TrimSpace(rest)); !ok {
			break
		}
		names = append(names, name)
		rest = strings.TrimSpace(rest)
		if rest == "}" {
			return names, nil
		}
		rest, ok = strings.CutPrefix(rest, ",")
	}
	return nil, errors.New("want {0: 'name', 1: 'name', ...}, counted from 0")
}

// quoted reads a string in single or double quotes, in which a backslash makes
// the next character plain.
func quoted(text string) (value, rest string, ok bool) {
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == text[0]:
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
