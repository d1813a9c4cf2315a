package scenemodel

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/onnx/onnxtest"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/pixel"
)

var update = flag.Bool("update", false, "write target.onnx anew")

func TestTheFileIsWhatBuildWrites(t *testing.T) {
	got := Build()
	if *update {
		if err := os.WriteFile("target.onnx", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(Model(), got) {
		t.Errorf("target.onnx has %d bytes, Build() wrote %d others; run this test with -update", len(Model()), len(got))
	}
	if len(got) > 16<<10 {
		t.Errorf("Build() wrote %d bytes; want a small file", len(got))
	}
}

// The model finds the target where the scene says that it is, and nothing where
// there is none, in all formats, whatever range of colours is supposed.
func TestFindsTheTarget(t *testing.T) {
	s, err := onnxtest.Runtime(t).Open(Model(), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	size, err := yolo.InputSize(s.InputPort().Shape, s.Metadata(), pixel.Size{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shape(t.Context(), yolo.Shape(size), nil); err != nil {
		t.Fatal(err)
	}
	layout, err := yolo.Recognise(yolo.Auto, yolo.Model{Size: size, Meta: s.Metadata(), Outputs: []yolo.Tensor{{Name: "output0", Shape: s.OutputPorts()[0].Shape}}})
	if err != nil || layout.Family != yolo.YOLOv8 {
		t.Fatalf("Recognise() = %+v, %v; want yolov8", layout, err)
	}
	if names, err := yolo.Labels(nil, s.Metadata(), layout.Classes); err != nil || names[0] != "target" {
		t.Fatalf("Labels() = %v, %v; want target", names, err)
	}
	decoder, err := yolo.NewDecoder(layout, yolo.Filter{Scores: []float32{0.5}, NMS: 0.45})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []pixel.Format{pixel.YUV420, pixel.NV12, pixel.YUYV, pixel.RGB24} {
		for _, text := range []string{"640x480", "1280x720", "1920x1080", "480x640", "320x320"} {
			size, _ := pixel.ParseSize(text)
			eye := &eye{t: t, session: s, layout: layout, decoder: decoder}
			eye.open(format, size, map[bool]pixel.Colour{true: scene.Colour()}[text == "640x480"])
			for frame := uint64(0); frame < scene.Cycle; frame += 7 {
				eye.check(frame)
			}
		}
	}
}

type eye struct {
	t       *testing.T
	session *onnx.Session
	layout  yolo.Layout
	decoder *yolo.Decoder
	box     *yolo.Letterbox
	scene   *scene.Scene
	img     pixel.Image
}

func (e *eye) open(f pixel.Format, s pixel.Size, c pixel.Colour) {
	var err error
	if e.scene, err = scene.New(f, s); err == nil {
		e.img, err = pixel.NewImage(f, s, make([]byte, e.scene.Bytes()))
	}
	if err == nil {
		e.box, err = yolo.NewLetterbox(f, s, c, e.layout.Input(), e.session.Input())
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *eye) check(frame uint64) {
	e.t.Helper()
	err := e.scene.Draw(frame, e.img.Data)
	if err == nil {
		err = e.box.Fill(e.img)
	}
	if err == nil {
		err = e.session.Run(e.t.Context())
	}
	if err != nil {
		e.t.Fatal(err)
	}
	got, err := e.decoder.Decode([][]float32{e.session.Output(0)}, e.box)
	if err != nil {
		e.t.Fatal(err)
	}
	r, visible := scene.Target(frame, e.img.Size)
	want := yolo.Box{float32(r.Min.X), float32(r.Min.Y), float32(r.Max.X), float32(r.Max.Y)}
	if visible != (len(got) == 1) || visible && got[0].Box.IoU(want) < 0.85 {
		e.t.Errorf("frame %d of %s %s: found %v; want %v, %v", frame, e.img.Format, e.img.Size, got, want, visible)
	}
}
