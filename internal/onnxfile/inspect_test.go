package onnxfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// weighty is a model whose weights, 3 numbers, are in a file.
func weighty(file string) *Graph {
	inner := &Graph{Name: "inner", Nodes: []Node{{Op: "EfficientNMS_TRT"}}}
	return &Graph{Name: "g", Inputs: []Value{{Name: "a", Type: Float, Shape: []int64{3}}}, Outputs: []Value{{Name: "b", Type: Float, Shape: []int64{3}}},
		Constants: []Constant{{Name: "c", Shape: []int64{3}, Floats: []float32{1, 2, 3}, File: file}, {Name: "d", Ints: []int64{7}}},
		Nodes:     []Node{{Op: "Mul", In: []string{"a", "c"}, Out: []string{"b"}}, {Op: "If", Attributes: []Attribute{{"then", inner}}}},
		Metadata:  []Pair{{"names", "{0: 'x'}"}}}
}

func put(t *testing.T, dir, name string, contents []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "w/x.data", make([]byte, 12))
	model := Encode(weighty("w/x.data"))
	got, err := Inspect(put(t, dir, "m.onnx", model))
	want := &Info{Producer: "perch", IR: 8, Opset: 13, Metadata: map[string]string{"names": "{0: 'x'}"},
		External: []External{{"w/x.data", 12}}, Foreign: []string{"EfficientNMS_TRT"}, Bytes: int64(len(model)) + 12}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Inspect() = %v (-want +got):\n%s", err, diff)
	}
}

func TestInspectSaysWhatAFileIs(t *testing.T) {
	model := Encode(weighty(""))
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"pointer":    {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"), "a Git LFS pointer: run git lfs pull"},
		"page":       {[]byte("\n<!DOCTYPE html><html>"), "an HTML page: the download failed"},
		"page too":   {[]byte("<HTML><body>"), "an HTML page: the download failed"},
		"answer":     {[]byte(`{"message": "Not Found"}`), "a JSON text: the download failed"},
		"OpenVINO":   {[]byte(`<?xml version="1.0"?><net name="yolo">`), "as OpenVINO has"},
		"PyTorch":    {[]byte("PK\x03\x04\x00\x00archive/data.pkl"), "as PyTorch's .pt files are"},
		"gzip":       {[]byte("\x1f\x8b\x08\x00"), "a compressed archive"},
		"TensorFlow": {[]byte("\x1c\x00\x00\x00TFL3\x14\x00"), "a TensorFlow Lite model"},
		"text":       {[]byte("person\ncar\n"), `a text that begins "person`},
		"empty":      {nil, "an empty file"},
		"zeros":      {make([]byte, 4096), "a file of zeros"},
		"noise":      {bytes.Repeat([]byte{0xff, 0x07, 0x99}, 99), "does not follow the format"},
		"other":      {append([]byte{8, 8}, bytes.Repeat([]byte{0x12, 0x01, 'x'}, 99)...), "does not follow the format"},
	} {
		if info, err := Inspect(put(t, t.TempDir(), "m.onnx", tt.file)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Inspect() = %v, %v; want an error with %q", name, info, err, tt.want)
		}
	}
	for n := 3; n < len(model)-30; n++ { // the last 30 bytes are notes, without which it is whole too
		_, err := Inspect(put(t, t.TempDir(), "m.onnx", model[:n]))
		if err == nil || !strings.Contains(err.Error(), "not complete") && !strings.Contains(err.Error(), "not an ONNX file") {
			t.Fatalf("Inspect(the first %d of %d bytes) = %v; want an error", n, len(model), err)
		}
		if n > 20 && !strings.Contains(err.Error(), "not complete") {
			t.Fatalf("Inspect(the first %d of %d bytes) = %v; want that it is not complete", n, len(model), err)
		}
	}
}

// A model reads weights out of its own folder, and no other file of the box.
func TestWeightsElsewhereAreRefused(t *testing.T) {
	dir := t.TempDir()
	secret := put(t, dir, "secret", make([]byte, 100))
	model := func(file string) string { return put(t, dir, "models/m.onnx", Encode(weighty(file))) }
	put(t, dir, "models/short.data", make([]byte, 11))
	if err := os.Symlink(secret, filepath.Join(dir, "models/link.data")); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"../secret":    "outside the model's folder",
		"/etc/passwd":  "outside the model's folder",
		"a/../../b":    "outside the model's folder",
		"link.data":    "a link out of the model's folder",
		"missing.data": "copy it there, under that name, or export into one file",
		"short.data":   "not complete: 11 bytes of at least 12",
		".":            "not a regular file",
	} {
		path := model(file)
		if info, err := Inspect(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Inspect(weights in %s) = %+v, %v; want an error with %q", file, info, err, want)
		}
		if _, err := Merge(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Merge(weights in %s) = %v; want an error with %q", file, err, want)
		}
	}
	// A cache keeps files by their hash, and links to them beside each other.
	blob := put(t, dir, "blobs/1", Encode(weighty("w.data")))
	weights := put(t, dir, "blobs/2", make([]byte, 12))
	if err := os.MkdirAll(filepath.Join(dir, "snapshot"), 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{blob: "snapshot/m.onnx", weights: "snapshot/w.data"} {
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Inspect(filepath.Join(dir, "snapshot/m.onnx")); err != nil {
		t.Errorf("Inspect(a model and its weights, both links into one folder) = %v; want none", err)
	}
}

func TestMerge(t *testing.T) {
	dir := t.TempDir()
	outside, inside := weighty("x.data"), weighty("")
	put(t, dir, "x.data", append(outside.Constants[0].Bytes(), "more"...))
	got, err := Merge(put(t, dir, "m.onnx", Encode(outside)))
	if want := Encode(inside); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Merge() = %x, %v; want\n%x", got, err, want)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(Encode(weighty("x.data")))
	f.Add(Encode(weighty("")))
	f.Add([]byte("version https://git-lfs"))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := put(t, t.TempDir(), "m.onnx", file) // a new one: to overwrite one is slow on ext4
		if info, err := Inspect(path); err == nil && (info.IR < 1 || info.Bytes != int64(len(file)) && len(info.External) == 0) {
			t.Errorf("Inspect() = %+v; want a version and %d bytes", info, len(file))
		}
		if whole, err := Merge(path); err == nil && len(whole) > 2*len(file)+1000 {
			t.Errorf("Merge() = %d bytes of %d", len(whole), len(file))
		}
	})
}
