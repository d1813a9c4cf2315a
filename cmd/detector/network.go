package main

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	layout  yolo.Layout
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
func openNetwork(ctx context.Context, cfg Config) (n *network, err error) {
	path, err := onnx.Find(cfg.Library)
	if err != nil {
		return nil, worker.NoDevice(err)
	}
	n = &network{}
	if n.runtime, err = onnx.Load(path); err != nil {
		return nil, worker.NoDevice(err)
	}
	if err := n.open(ctx, cfg); err != nil {
		err = fmt.Errorf("model %s: %w", cfg.Model, err)
		if ctx.Err() == nil {
			err = worker.BadConfig(err)
		}
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *network) open(ctx context.Context, cfg Config) (err error) {
	model := scenemodel.Model()
	if cfg.Model != Simulated {
		if model, err = os.ReadFile(cfg.Model); err != nil {
			return err
		}
	}
	n.session, err = n.runtime.Open(model, onnx.Options{Threads: cfg.Threads, Level: cfg.Optimisation, Provider: cfg.Provider})
	if err != nil {
		return err
	}
	meta := n.session.Metadata()
	size, err := yolo.InputSize(n.session.InputPort().Shape, meta, cfg.InputSize)
	if err != nil {
		return err
	}
	if err := n.session.Shape(ctx, yolo.Shape(size)); err != nil {
		return err
	}
	var shapes [][]int64
	for _, p := range n.session.OutputPorts() {
		shapes = append(shapes, p.Shape)
	}
	if n.layout, err = yolo.Recognise(cfg.Family, size, shapes, meta); err != nil {
		return err
	}
	if err := n.layout.Look(n.session.Output(n.layout.Output)); err != nil {
		return err
	}
	return n.choose(cfg)
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
		n.box, err = yolo.NewLetterbox(img.Format, img.Size, img.Colour, n.layout.Input(), n.session.Input())
		if err != nil {
			return err
		}
		n.of = of
	}
	return n.box.Fill(img)
}

// run runs the network on what was taken.
func (n *network) run(ctx context.Context) error { return n.session.Run(ctx) }

// objects are what the last run found; they are valid until the next.
func (n *network) objects() ([]yolo.Object, error) {
	return n.decoder.Decode(n.session.Output(n.layout.Output), n.box)
}

func (n *network) close() error {
	var err error
	if n.session != nil {
		err = n.session.Close()
	}
	return errors.Join(err, n.runtime.Close())
}
