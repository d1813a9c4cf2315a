package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/onnxfile"
)

// endlessLoad is a model that is never done with the test picture.
func endlessLoad() []byte {
	e := newExport()
	body := &onnxfile.Graph{Name: "body",
		Inputs:  []onnxfile.Value{{Name: "i", Type: onnxfile.Int64}, {Name: "go", Type: onnxfile.Bool}, {Name: "v", Type: onnxfile.Float}},
		Outputs: []onnxfile.Value{{Name: "goon", Type: onnxfile.Bool}, {Name: "w", Type: onnxfile.Float}},
		Nodes:   []onnxfile.Node{{Op: "Identity", In: []string{"go"}, Out: []string{"goon"}}, {Op: "Identity", In: []string{"v"}, Out: []string{"w"}}}}
	light := e.op("ReduceMax", []string{"images"}, attr("keepdims", int64(0)))
	times := e.cast(e.scale(light, 1e15), onnxfile.Int64)
	done := e.op("Loop", []string{times, "", light}, attr("body", body))
	return onnxfile.Encode(e.output("output0", e.op("Add", []string{"raw", e.scale(done, 0)}), onnxfile.Float, 1, 5, 2100).Graph)
}

func TestCheckIsBounded(t *testing.T) {
	library := onnxtest.Library(t)
	cfg := with(t, write(t, endlessLoad()))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	warning, err := cfg.Check(ctx)
	if err != nil || warning == nil || !strings.Contains(warning.Error(), "not fully checked") {
		t.Errorf("Check() of a model that takes for ever = %v, %v; want a warning", warning, err)
	}
	boxtest.Poll(t, "the library to be closed", func() bool { // other tests load it
		r, err := onnx.Load(library)
		return err == nil && r.Close() == nil
	})
}

// Check refuses what the worker will refuse, and knows a model's labels afterwards.
func TestCheckLoadsTheModel(t *testing.T) {
	onnxtest.Library(t)
	e := exports()["yolov8 transposed, three classes"](newExport())
	cfg := with(t, write(t, onnxfile.Encode(e.Graph)))
	if warning, err := cfg.Check(t.Context()); warning != nil || err != nil {
		t.Errorf("Check() = %v, %v; want nothing", warning, err)
	}
	if got, want := cfg.Knows(), []string{"target", "person", "vehicle"}; !cmp.Equal(got, want) {
		t.Errorf("Knows() after Check() = %v; want the model's own, %v", got, want)
	}
	cfg.Only = []string{"preson"}
	if _, err := cfg.Check(t.Context()); err == nil || !strings.Contains(err.Error(), `the model has no label "preson"; did you mean "person"?`) {
		t.Errorf("Check() with an unknown label = %v; want an error", err)
	}
	cfg = with(t, write(t, onnxfile.Encode(newExport().note("task", "pose").output("output0", "raw", onnxfile.Float, 1, 5, 2100).Graph)))
	if _, err := cfg.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "a pose model") {
		t.Errorf("Check() of a pose model = %v; want an error", err)
	}
}
