package onnx_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/onnxfile"
)

// twice is a network that adds its input to itself.
func twice(in, out onnxfile.Type, shape ...int64) []byte {
	return onnxfile.Encode(&onnxfile.Graph{Name: "twice", Metadata: []onnxfile.Pair{{Key: "names", Value: "{0: 'x'}"}},
		Inputs:  []onnxfile.Value{{Name: "a", Type: in, Shape: shape}},
		Outputs: []onnxfile.Value{{Name: "b", Type: out, Shape: shape}},
		Nodes:   []onnxfile.Node{{Op: "Add", In: []string{"a", "a"}, Out: []string{"b"}}}})
}

// endless is a network that counts to 2^62.
func endless() []byte {
	body := &onnxfile.Graph{Name: "body",
		Inputs:  []onnxfile.Value{{Name: "i", Type: onnxfile.Int64}, {Name: "go", Type: onnxfile.Bool}, {Name: "x", Type: onnxfile.Float, Shape: []int64{1}}},
		Outputs: []onnxfile.Value{{Name: "goon", Type: onnxfile.Bool}, {Name: "y", Type: onnxfile.Float, Shape: []int64{1}}},
		Nodes:   []onnxfile.Node{{Op: "Identity", In: []string{"go"}, Out: []string{"goon"}}, {Op: "Add", In: []string{"x", "x"}, Out: []string{"y"}}}}
	return onnxfile.Encode(&onnxfile.Graph{Name: "endless",
		Inputs:    []onnxfile.Value{{Name: "a", Type: onnxfile.Float, Shape: []int64{1}}},
		Outputs:   []onnxfile.Value{{Name: "b", Type: onnxfile.Float, Shape: []int64{1}}},
		Constants: []onnxfile.Constant{{Name: "times", Ints: []int64{1 << 62}}},
		Nodes:     []onnxfile.Node{{Op: "Loop", In: []string{"times", "", "a"}, Out: []string{"b"}, Attributes: []onnxfile.Attribute{{Name: "body", Value: body}}}}})
}

func open(t *testing.T, r *onnx.Runtime, model []byte, o onnx.Options) *onnx.Session {
	t.Helper()
	s, err := r.Open(model, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestRun(t *testing.T) {
	r := onnxtest.Runtime(t)
	for _, o := range []onnx.Options{{}, {Threads: 2, Level: onnx.Off, Provider: onnx.CPU}, {Level: onnx.Basic}, {Level: onnx.Extended}} {
		s := open(t, r, twice(onnxfile.Float, onnxfile.Float, 1, -1), o)
		if got, want := s.InputPort(), (onnx.Port{Name: "a", Type: onnx.Float32, Shape: []int64{1, -1}}); !cmp.Equal(got, want) {
			t.Errorf("InputPort() = %v; want %v", got, want)
		}
		if got := s.Metadata()["names"]; got != "{0: 'x'}" {
			t.Errorf("Metadata() = %v; want the names", s.Metadata())
		}
		if err := s.Shape(t.Context(), []int64{1, 3}, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := s.OutputPorts(), []onnx.Port{{Name: "b", Type: onnx.Float32, Shape: []int64{1, 3}}}; !cmp.Equal(got, want) {
			t.Errorf("OutputPorts() = %v; want %v", got, want)
		}
		for i := range 3 {
			copy(s.Input(), []float32{1, 2, float32(i)})
			if err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := s.Output(0), []float32{2, 4, 2 * float32(i)}; !cmp.Equal(got, want) {
				t.Errorf("Output(0) = %v; want %v", got, want)
			}
		}
		if err := s.Shape(t.Context(), []int64{1, 3}, nil); err == nil {
			t.Error("a second Shape() = nil; want an error")
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	r := onnxtest.Runtime(t)
	s := open(t, r, endless(), onnx.Options{})
	late := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
	defer cancel()
	begun := time.Now()
	if err := s.Shape(ctx, []int64{1}, nil); !errors.Is(err, late) || time.Since(begun) > 5*time.Second {
		t.Errorf("Shape() of an endless network = %v after %v; want %v soon after 50ms", err, time.Since(begun), late)
	}
	if err := s.Run(ctx); err == nil {
		t.Error("Run() with a context that is done = nil; want its error")
	}
}

func TestOpenRefuses(t *testing.T) {
	r := onnxtest.Runtime(t)
	good := twice(onnxfile.Float, onnxfile.Float, 1, 3)
	two := onnxfile.Encode(&onnxfile.Graph{Name: "two",
		Inputs:  []onnxfile.Value{{Name: "a", Type: onnxfile.Float, Shape: []int64{1}}, {Name: "c", Type: onnxfile.Float, Shape: []int64{1}}},
		Outputs: []onnxfile.Value{{Name: "b", Type: onnxfile.Float, Shape: []int64{1}}},
		Nodes:   []onnxfile.Node{{Op: "Add", In: []string{"a", "c"}, Out: []string{"b"}}}})
	unknown := onnxfile.Encode(&onnxfile.Graph{Name: "unknown",
		Inputs:  []onnxfile.Value{{Name: "a", Type: onnxfile.Float, Shape: []int64{1}}},
		Outputs: []onnxfile.Value{{Name: "b", Type: onnxfile.Float, Shape: []int64{1}}},
		Nodes:   []onnxfile.Node{{Op: "Guess", In: []string{"a"}, Out: []string{"b"}}}})
	for name, tt := range map[string]struct {
		model []byte
		o     onnx.Options
		want  string
	}{
		"empty":     {nil, onnx.Options{}, "no bytes"},
		"text":      {[]byte("<!DOCTYPE html>"), onnx.Options{}, "not a model that ONNX Runtime reads"},
		"cut short": {good[:len(good)/2], onnx.Options{}, "not a model that ONNX Runtime reads"},
		"operator":  {unknown, onnx.Options{}, "Guess"},
		"integers":  {twice(onnxfile.Int64, onnxfile.Int64, 1), onnx.Options{}, "want float32, float16 or uint8"},
		"two":       {two, onnx.Options{}, "want one for a picture, with four dimensions"},
		"provider":  {good, onnx.Options{Provider: "NoSuch"}, `execution provider "NoSuch": this library does not have it`},
		"level":     {good, onnx.Options{Level: "most"}, "want off, basic, extended or all"},
	} {
		if s, err := r.Open(tt.model, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open() = %v, %v; want an error with %q", name, s, err, tt.want)
		}
	}
	s := open(t, r, good, onnx.Options{})
	if err := s.Shape(t.Context(), []int64{1, 4}, nil); err == nil {
		t.Error("Shape([1 4]) of a network of [1 3] = nil; want an error")
	}
	if _, err := onnx.Load(onnxtest.Library(t)); err == nil || !strings.Contains(err.Error(), "loaded already") {
		t.Errorf("a second Load() = %v; want an error", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "libonnxruntime.so.1")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := onnx.Load(text); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("Load(a text) = %v; want an error with its path", err)
	}
}

func TestFind(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.so")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(onnx.Variable, file)
	if got, err := onnx.Find(""); got != file || err != nil {
		t.Errorf("Find() = %q, %v; want what the environment says, %q", got, err, file)
	}
	if got, err := onnx.Find("/no/such.so"); err == nil {
		t.Errorf("Find(/no/such.so) = %q; want an error and no other", got)
	}
	missing := (*onnx.NotFoundError)(nil)
	t.Setenv(onnx.Variable, "/nor/this.so")
	if got, err := onnx.Find(""); !errors.As(err, &missing) || !cmp.Equal(missing.Tried, []string{"/nor/this.so"}) {
		t.Errorf("Find() = %q, %v; want a NotFoundError with what was tried", got, err)
	}
	t.Setenv(onnx.Variable, "")
	if got, err := onnx.Find(""); err != nil && (!errors.As(err, &missing) || len(missing.Tried) < 5 || !strings.Contains(err.Error(), "make setup")) {
		t.Errorf("Find() = %q, %v; want all usual places and what to do", got, err)
	}
}
