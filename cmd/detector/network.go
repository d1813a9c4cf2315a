package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/perch-edge/perch/internal/onnx"
	"github.com/perch-edge/perch/internal/scenemodel"
	"github.com/perch-edge/perch/internal/yolo"
	"github.com/perch-edge/perch/pkg/pixel"
	"github.com/perch-edge/perch/pkg/worker"
)

// network is a model that is ready: frames in, objects out.
type network struct {
	runtime *onnx.Runtime
	session *onnx.Session
	size    pixel.Size // of the input
	tensor  []float32  // the picture, a plane a colour
	pixels  []float32  // the same with the colours of a pixel side by side, where the network wants it so
	varied  []bool     // outputs whose shape the model leaves open
	layout  yolo.Layout
	in      yolo.Input
	outs    [][]float32
	labels  []string
	decoder *yolo.Decoder
	box     *yolo.Letterbox
	of      view // what the letterbox was made for
}

// view is what frames look like.
type view struct {
	format pixel.Format
	size   pixel.Size
	colour pixel.Colour
}

// openNetwork loads the runtime and the model, and runs it once.
func openNetwork(ctx context.Context, cfg Config) (*network, error) {
	n, err := load(ctx, cfg)
	if why := (*libraryError)(nil); errors.As(err, &why) {
		return nil, worker.NoDevice(err)
	}
	if err != nil {
		err = fmt.Errorf("model %s: %w", cfg.Model, err)
		if ctx.Err() == nil {
			err = worker.BadConfig(err)
		}
		return nil, err
	}
	return n, nil
}

// libraryError is one of ONNX Runtime's library, and not of the model.
type libraryError struct{ error }

func (e *libraryError) Unwrap() error { return e.error }

func load(ctx context.Context, cfg Config) (*network, error) {
	path, err := onnx.Find(cfg.Library)
	if err != nil {
		return nil, &libraryError{err}
	}
	n := &network{}
	if n.runtime, err = onnx.Load(path); err != nil {
		return nil, &libraryError{err}
	}
	if err := n.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) open(ctx context.Context, cfg Config) (err error) {
	options := onnx.Options{Threads: cfg.Threads, Level: cfg.Optimisation, Provider: cfg.Provider}
	if cfg.Model == Simulated {
		n.session, err = n.runtime.Open(scenemodel.Model(), options)
	} else if _, err = cfg.inspect(); err == nil {
		n.session, err = n.runtime.OpenFile(cfg.Model, options)
	}
	if err != nil {
		return err
	}
	if err := n.shape(ctx, cfg); err != nil {
		return err
	}
	if err := n.recognise(ctx, cfg); err != nil {
		return err
	}
	return n.choose(cfg)
}

// shape settles the input's size and runs the network once.
func (n *network) shape(ctx context.Context, cfg Config) error {
	declared, last := yolo.LastChannels(n.session.InputPort().Shape)
	size, err := yolo.InputSize(declared, n.session.Metadata(), cfg.InputSize)
	if err != nil {
		return err
	}
	n.size = size
	side := map[string][]float32{}
	for _, p := range n.session.SidePorts() {
		if side[p.Name], err = yolo.SideInput(p.Name, size); err != nil {
			return err
		}
	}
	shape := yolo.Shape(size)
	if last {
		shape = []int64{1, int64(size.Height), int64(size.Width), 3}
	}
	n.varied = nil
	for _, p := range n.session.OutputPorts() {
		n.varied = append(n.varied, slices.ContainsFunc(p.Shape, func(side int64) bool { return side < 0 }))
	}
	if err := n.session.Shape(ctx, shape, side); err != nil {
		if cfg.InputSize == (pixel.Size{}) && (declared[2] < 0 || declared[3] < 0) {
			return fmt.Errorf("the model leaves its input's size open, and %s does not fit: set input_size: %w", size, err)
		}
		return err
	}
	n.tensor = n.session.Input()
	if last {
		n.tensor = make([]float32, len(n.tensor))
		n.pixels = n.session.Input()
	}
	return nil
}

// recognise settles what the outputs are, with the help of a run on a test picture.
func (n *network) recognise(ctx context.Context, cfg Config) (err error) {
	m := yolo.Model{Size: n.size, Input: n.session.InputPort().Name, Meta: n.session.Metadata(), Names: len(cfg.Labels),
		Told: cfg.Scale != "auto" && cfg.Order != "auto" && cfg.Place != "auto"}
	for i, p := range n.session.OutputPorts() {
		m.Outputs = append(m.Outputs, yolo.Tensor{Name: p.Name, Shape: p.Shape, Open: n.varied[i], Integers: p.Type == onnx.Int32 || p.Type == onnx.Int64})
	}
	if n.layout, err = yolo.Recognise(cfg.Family, m); err != nil {
		return err
	}
	yolo.Probe(n.input(cfg), n.tensor)
	if err := n.run(ctx); err != nil {
		return err
	}
	if err := n.layout.Look(n.outputs()); err != nil {
		return err
	}
	n.in = n.input(cfg)
	return nil
}

// input is how the network wants its pictures: as its family does, but for what
// the user says otherwise.
func (n *network) input(cfg Config) yolo.Input {
	in := n.layout.Input()
	if n.session.InputPort().Type == onnx.Uint8 {
		in.Scale = 1
	}
	switch cfg.Scale {
	case "0-1":
		in.Scale = 1.0 / 255
	case "0-255":
		in.Scale = 1
	}
	if cfg.Order != "auto" {
		in.BGR = cfg.Order == "bgr"
	}
	if cfg.Place != "auto" {
		in.Centred, in.Stretched = cfg.Place == "centre", cfg.Place == "stretch"
	}
	return in
}

// choose settles which objects count.
func (n *network) choose(cfg Config) (err error) {
	if n.labels, err = yolo.Labels(cfg.Labels, n.session.Metadata(), n.layout.Classes); err != nil {
		return err
	}
	scores, err := cfg.leastScores(n.labels)
	if err != nil {
		return err
	}
	n.decoder, err = yolo.NewDecoder(n.layout, yolo.Filter{Scores: scores, NMS: float32(cfg.NMS),
		MinWidth: float32(cfg.MinWidth), MinHeight: float32(cfg.MinHeight), Mask: cfg.Mask})
	return err
}

// take brings a frame into the network's input. img is what the camera gave or,
// of an mjpeg camera, what was decoded of it.
func (n *network) take(img pixel.Image) (err error) {
	if of := (view{img.Format, img.Size, img.Colour}); n.box == nil || n.of != of {
		n.box, err = yolo.NewLetterbox(img.Format, img.Size, img.Colour, n.in, n.tensor)
		if err != nil {
			return err
		}
		n.of = of
	}
	return n.box.Fill(img)
}

// run runs the network on what was taken.
func (n *network) run(ctx context.Context) error {
	if n.pixels != nil {
		yolo.Interleave(n.tensor, n.pixels)
	}
	return n.session.Run(ctx)
}

// outputs are those of the last run that the layout reads.
func (n *network) outputs() [][]float32 {
	n.outs = n.outs[:0]
	for _, i := range n.layout.Outputs {
		n.outs = append(n.outs, n.session.Output(i))
	}
	return n.outs
}

// objects are what the last run found; they are valid until the next.
func (n *network) objects() ([]yolo.Object, error) {
	return n.decoder.Decode(n.outputs(), n.box)
}

func (n *network) close() error {
	var err error
	if n.session != nil {
		err = n.session.Close()
	}
	return errors.Join(err, n.runtime.Close())
}
