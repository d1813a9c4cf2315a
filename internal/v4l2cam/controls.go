package v4l2cam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vladimirvivien/go4vl/v4l2"
	"golang.org/x/sys/unix"

	"github.com/perch-edge/perch/internal/nearest"
)

// ControlError says why a setting cannot be made.
type ControlError struct {
	Key string // of the setting
	Err error
}

// ControlErrors are all settings of a config that this camera cannot have. None
// of them was made then, but for those that only trying could tell.
type ControlErrors []ControlError

func (es ControlErrors) Error() string {
	var lines []string
	for _, e := range es {
		lines = append(lines, e.Key+": "+e.Err.Error())
	}
	return strings.Join(lines, "\n")
}

// Control is a control that was set.
type Control struct {
	Key, Name  string
	Asked, Got int32 // cameras round, and do not always tell their steps
}

// change is a setting with the control that it is for.
type change struct {
	Setting
	control v4l2.Control
	value   int32
}

// setControls makes the settings, all or none. device is for people.
func setControls(fd uintptr, device string, settings []Setting) ([]Control, error) {
	if len(settings) == 0 {
		return nil, nil
	}
	has, err := controls(fd)
	if err != nil {
		return nil, err
	}
	changes, bad := plan(has, device, settings)
	if len(bad) > 0 {
		return nil, bad
	}
	// What is a switch comes first: a value that is automatic cannot be set.
	slices.SortStableFunc(changes, func(a, b change) int { return order(a.control) - order(b.control) })
	var set []Control
	for _, c := range changes {
		got, err := c.make(fd)
		if err != nil {
			return nil, err
		}
		set = append(set, Control{Key: c.key, Name: nameOf(c.control), Asked: c.value, Got: got})
	}
	return set, nil
}

func order(c v4l2.Control) int {
	if c.Type == v4l2.CtrlTypeInt {
		return 1
	}
	return 0
}

// controls lists the controls that are plain numbers.
func controls(fd uintptr) ([]v4l2.Control, error) {
	all, err := v4l2.QueryAllControls(fd)
	if errors.Is(err, v4l2.ErrorUnsupported) || errors.Is(err, v4l2.ErrorBadArgument) {
		return nil, nil // how a device answers that has none
	}
	if err != nil {
		return nil, fmt.Errorf("list controls: %w", err)
	}
	numbers := []v4l2.CtrlType{v4l2.CtrlTypeInt, v4l2.CtrlTypeBool, v4l2.CtrlTypeMenu, v4l2.CtrlTypeIntegerMenu}
	return slices.DeleteFunc(all, func(c v4l2.Control) bool { return !slices.Contains(numbers, c.Type) }), nil
}

// plan finds the control and the value of each setting.
func plan(has []v4l2.Control, device string, settings []Setting) (changes []change, bad ControlErrors) {
	by := map[v4l2.CtrlID]string{} // who sets it
	for _, s := range settings {
		i := slices.IndexFunc(has, s.is)
		if i < 0 {
			if !s.optional {
				bad = append(bad, ControlError{s.key, absent(has, device, s.name)})
			}
			continue
		}
		value, err := s.value(has[i])
		if other, taken := by[has[i].ID]; taken && err == nil {
			err = fmt.Errorf("%s sets %s already", other, nameOf(has[i]))
		}
		if err != nil {
			bad = append(bad, ControlError{s.key, fmt.Errorf("%s: %w", device, err)})
			continue
		}
		by[has[i].ID] = s.key
		changes = append(changes, change{s, has[i], value})
	}
	return changes, bad
}

func (s Setting) is(c v4l2.Control) bool {
	if s.id != 0 {
		return c.ID == s.id
	}
	return nameOf(c) == s.name
}

func absent(has []v4l2.Control, device, name string) error {
	var names []string
	for _, c := range has {
		names = append(names, nameOf(c))
	}
	if len(names) == 0 {
		return fmt.Errorf("%s has no control %s, and no other", device, name)
	}
	near := ""
	if word, ok := nearest.Word(name, names); ok {
		near = fmt.Sprintf(" (did you mean %q?)", word)
	}
	return fmt.Errorf("%s has no control %s%s; it has %s", device, name, near, strings.Join(names, ", "))
}

// nameOf is a control's name as v4l2-ctl writes it: "exposure_time_absolute" of
// "Exposure Time, Absolute".
func nameOf(c v4l2.Control) string {
	words := strings.FieldsFunc(strings.ToLower(c.Name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return strings.Join(words, "_")
}

// value is the one to set, which the control must have.
func (s Setting) value(c v4l2.Control) (int32, error) {
	if c.IsMenu() {
		return s.item(c)
	}
	v := s.values[0]
	step := max(c.Step, 1)
	// Reckoned in 64 bits, for a range may be all of 32.
	off := (int64(v) - int64(c.Minimum)) % int64(step)
	if v < c.Minimum || v > c.Maximum || off != 0 {
		return 0, fmt.Errorf("%s goes from %s to %s in steps of %s", nameOf(c), s.text(c.Minimum), s.text(c.Maximum), s.text(step))
	}
	return v, nil
}

func (s Setting) item(c v4l2.Control) (int32, error) {
	items, err := c.GetMenuItems()
	if err != nil {
		return 0, err
	}
	for _, v := range s.values {
		if slices.ContainsFunc(items, func(i v4l2.ControlMenuItem) bool { return int32(i.Index) == v }) {
			return v, nil
		}
	}
	var list []string
	for _, i := range items {
		list = append(list, fmt.Sprintf("%d (%s)", i.Index, i.Name))
	}
	return 0, fmt.Errorf("%s is one of %s", nameOf(c), strings.Join(list, ", "))
}

// make sets the control and asks what it is then.
func (c change) make(fd uintptr) (got int32, err error) {
	refused := func(why string) error {
		return ControlErrors{{c.key, fmt.Errorf("%s = %d: %s: %w", nameOf(c.control), c.value, why, err)}}
	}
	err = v4l2.SetControlValue(fd, c.control.ID, c.value)
	switch {
	case errors.Is(err, unix.EACCES):
		return 0, refused("the camera does not let it be set: is an automatic on that has it?")
	case errors.Is(err, unix.ERANGE), errors.Is(err, v4l2.ErrorBadArgument):
		return 0, refused("the camera refuses it")
	case err != nil:
		return 0, fmt.Errorf("set %s = %d: %w", nameOf(c.control), c.value, err)
	}
	got, err = v4l2.GetControlValue(fd, c.control.ID)
	if errors.Is(err, unix.EACCES) { // some can be written only
		return c.value, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s back: %w", nameOf(c.control), err)
	}
	return got, nil
}
