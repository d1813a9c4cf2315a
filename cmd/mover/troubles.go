package main

import (
	"errors"
	"maps"
	"slices"
)

// troubles are what is wrong at the moment, by what was being done.
type troubles struct{ of map[string]error }

func (t *troubles) set(doing string, err error) {
	if t.of == nil {
		t.of = map[string]error{}
	}
	if err == nil {
		delete(t.of, doing)
		return
	}
	t.of[doing] = err
}

// all joins them.
func (t *troubles) all() error {
	var errs []error
	for _, doing := range slices.Sorted(maps.Keys(t.of)) {
		errs = append(errs, t.of[doing])
	}
	return errors.Join(errs...)
}
