package onnx

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ort "github.com/yalue/onnxruntime_go"
)

// Level is how far the runtime rewrites a network before it runs it: off, basic,
// extended or all (its documentation, "Graph Optimizations").
type Level string

// The levels.
const (
	Off      Level = "off"
	Basic    Level = "basic"
	Extended Level = "extended"
	All      Level = "all"
)

// UnmarshalText makes a Level a value of a topology.
func (l *Level) UnmarshalText(text []byte) error {
	if _, err := Level(text).ort(); err != nil {
		return err
	}
	*l = Level(text)
	return nil
}

func (l Level) ort() (ort.GraphOptimizationLevel, error) {
	switch l {
	case Off:
		return ort.GraphOptimizationLevelDisableAll, nil
	case Basic:
		return ort.GraphOptimizationLevelEnableBasic, nil
	case Extended:
		return ort.GraphOptimizationLevelEnableExtended, nil
	case All, "":
		return ort.GraphOptimizationLevelEnableAll, nil
	}
	return 0, fmt.Errorf("optimisation %.20q: want off, basic, extended or all", string(l))
}

// CPU is the execution provider that every library has.
const CPU = "cpu"

// Options say how a network is run. The zero value is one thread on the CPU, with
// all optimisations.
type Options struct {
	Threads  int    // 0 is 1
	Level    Level  // "" is All
	Provider string // "" is CPU; else as the library calls it, such as XNNPACK
}

// Port is an input or output of a network. A side that only the data decide is -1.
type Port struct {
	Name  string
	Shape []int64
}

func (p Port) String() string { return fmt.Sprintf("%s %v", p.Name, p.Shape) }

// Session is a network that is ready to run.
type Session struct {
	in      Port
	outs    []Port
	ort     *ort.DynamicAdvancedSession
	opts    *ort.RunOptions
	meta    map[string]string
	input   *ort.Tensor[float32]
	outputs []ort.Value
}

// Open opens a model, the contents of an ONNX file. It fails when they are none,
// are cut short, want a newer runtime, or have inputs or outputs of another kind
// than the package takes.
func (r *Runtime) Open(model []byte, o Options) (s *Session, err error) {
	if len(model) == 0 {
		return nil, errors.New("open model: no bytes: want an ONNX file")
	}
	s = &Session{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open model of %d bytes: %w", len(model), err), s.Close())
		}
	}()
	if err := s.look(model); err != nil {
		return s, err
	}
	settings, err := o.settings()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, settings.Destroy()) }()
	var names []string
	for _, p := range s.outs {
		names = append(names, p.Name)
	}
	if s.ort, err = ort.NewDynamicAdvancedSessionWithONNXData(model, []string{s.in.Name}, names, settings); err != nil {
		return s, err
	}
	if s.opts, err = ort.NewRunOptions(); err != nil {
		return s, err
	}
	return s, s.readMetadata()
}

// look reads what the network's inputs and outputs are. The binding opens the
// model for that, and closes it again.
func (s *Session) look(model []byte) error {
	ins, outs, err := ort.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return fmt.Errorf("not a model that ONNX Runtime reads: %w", err)
	}
	if len(ins) != 1 || len(outs) == 0 {
		return fmt.Errorf("%d inputs, %d outputs: want one input, and an output", len(ins), len(outs))
	}
	for _, p := range append(ins, outs...) {
		if p.OrtValueType != ort.ONNXTypeTensor || p.DataType != ort.TensorElementDataTypeFloat {
			return fmt.Errorf("%s: want a tensor of float32; export the model in full precision", p.String())
		}
	}
	s.in = Port{ins[0].Name, ins[0].Dimensions}
	for _, p := range outs {
		s.outs = append(s.outs, Port{p.Name, p.Dimensions})
	}
	return nil
}

func (o Options) settings() (*ort.SessionOptions, error) {
	level, err := o.Level.ort()
	if err != nil {
		return nil, err
	}
	so, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	steps := []error{
		so.SetIntraOpNumThreads(max(o.Threads, 1)),
		so.SetInterOpNumThreads(1),
		so.SetGraphOptimizationLevel(level),
		so.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
	}
	if p := strings.ToLower(o.Provider); p != "" && p != CPU {
		if err := so.AppendExecutionProvider(o.Provider, nil); err != nil {
			steps = append(steps, fmt.Errorf("execution provider %q: this library does not have it: %w", o.Provider, err))
		}
	}
	if err := errors.Join(steps...); err != nil {
		return nil, errors.Join(err, so.Destroy())
	}
	return so, nil
}

func (s *Session) readMetadata() error {
	m, err := s.ort.GetModelMetadata()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	defer func() { _ = m.Destroy() }() // it has no error to return
	keys, err := m.GetCustomMetadataMapKeys()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	s.meta = map[string]string{}
	for _, k := range keys {
		v, _, err := m.LookupCustomMetadataMap(k)
		if err != nil {
			return fmt.Errorf("read metadata %.40q: %w", k, err)
		}
		s.meta[k] = v
	}
	return nil
}

// InputPort is the network's input as the model declares it.
func (s *Session) InputPort() Port { return s.in }

// OutputPorts are the network's outputs: as the model declares them, and from
// Shape on as they are.
func (s *Session) OutputPorts() []Port { return s.outs }

// Metadata is what the model's exporter noted in it; the caller must not change it.
func (s *Session) Metadata() map[string]string { return s.meta }

// Shape settles the input's shape, allocates all tensors, and runs the network
// once on zeros. It fails where Run does, and when an output is not of float32.
func (s *Session) Shape(ctx context.Context, input []int64) (err error) {
	if s.input != nil {
		return errors.New("shape input: it has a shape already")
	}
	if s.input, err = ort.NewEmptyTensor[float32](ort.NewShape(input...)); err != nil {
		return fmt.Errorf("shape input %v: %w", input, err)
	}
	s.outputs = make([]ort.Value, len(s.outs)) // nil: the runtime makes them, by the shapes it finds
	if err := s.Run(ctx); err != nil {
		return fmt.Errorf("first run with input %v: %w", input, err)
	}
	for i, v := range s.outputs {
		if _, ok := v.(*ort.Tensor[float32]); !ok {
			return fmt.Errorf("first run: output %s: want float32", s.outs[i])
		}
		s.outs[i].Shape = v.GetShape()
	}
	return nil
}

// Input is the input's memory, to be filled before Run.
func (s *Session) Input() []float32 { return s.input.GetData() }

// Output is output i of the last Run, valid until the next.
func (s *Session) Output(i int) []float32 { return s.outputs[i].(*ort.Tensor[float32]).GetData() }

// Run runs the network on what is in Input. When ctx ends first it returns ctx's
// error, as soon as the node that is being computed is done.
func (s *Session) Run(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), s.opts.UnsetTerminate()); err != nil {
		return err
	}
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = s.opts.Terminate() // fails for options that do not exist only
	})
	err := s.ort.RunWithOptions([]ort.Value{s.input}, s.outputs, s.opts)
	if !stop() {
		<-told
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("run network: %w", err)
	}
	return nil
}

// Close frees the session's memory. It must not be called while Run runs.
func (s *Session) Close() error {
	var errs []error
	if s.input != nil {
		errs = append(errs, s.input.Destroy())
	}
	for _, v := range s.outputs {
		if v != nil {
			errs = append(errs, v.Destroy())
		}
	}
	if s.opts != nil {
		errs = append(errs, s.opts.Destroy())
	}
	if s.ort != nil {
		errs = append(errs, s.ort.Destroy())
	}
	*s = Session{}
	return errors.Join(errs...)
}
